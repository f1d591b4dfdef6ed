//! The program `tollgate`. What there is to say of it stands in the library, which holds it.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use tollgate_cli::main;

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "tollgate: this program was built without a database: build it with the feature `sqlite` or `postgres`"
    );
    std::process::ExitCode::from(5)
}
