//! The program `tollgate`. The library of this crate contains and documents it.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use tollgate_cli::main;

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "tollgate: this program was built without support for a database: enable the feature `sqlite` or `postgres`"
    );
    std::process::ExitCode::from(5)
}
