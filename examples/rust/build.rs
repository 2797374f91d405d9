//! Generates the client. buf reads the contract, so that no protoc is needed.

use std::error::Error;
use std::process::Command;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../../protos/chatcompletion/v1");
    let built = Command::new("buf")
        .args([
            "build",
            "../..",
            "--as-file-descriptor-set",
            "--output",
            "-",
        ])
        .output()?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into());
    }
    let files = prost_types::FileDescriptorSet::decode(&*built.stdout)?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(files)?;
    Ok(())
}
