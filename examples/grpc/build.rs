//! Compiles the proto without `protoc`.

use std::{env, error::Error, fs, path::Path};

// It also has `tollgate/policy.proto`, which `tollgate_tonic::policy::write_proto` writes for applications without a copy of their own.
const PROTOS: &str = "../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTOS}");

    let mut compiler = protox::Compiler::new([PROTOS])?;
    compiler.include_imports(true).open_file("market.proto")?;
    // For reflection, and for the policies. Encoded by protox: prost drops custom options, in which the policies are.
    let target = env::var("OUT_DIR")?;
    fs::write(Path::new(&target).join("market.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().build_client(false).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
