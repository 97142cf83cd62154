//! Compiles our few `.proto` files without a system protoc, and hands the crate the file descriptors of Envoy's API,
//! which the `envoy-types` package ships, for Envoy's JSON/YAML mapping.

use std::{env, error::Error, fs, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=istio");
    println!("cargo:rerun-if-changed=opentelemetry");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let files = protox::compile(
        ["istio/ca.proto", "istio/nds.proto", "opentelemetry/trace.proto"],
        ["."],
    )?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    fs::copy(envoy_descriptors()?, out.join("envoy.bin"))?;
    Ok(())
}

/// The path of the descriptor set inside the `envoy-types` package that this build uses.
fn envoy_descriptors() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = env::var("CARGO")?;
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--locked",
            "--filter-platform",
            &env::var("TARGET")?,
        ])
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("envoy-types is not among the packages of this workspace")?;
    let file = PathBuf::from(manifest)
        .with_file_name("src")
        .join("generated/types.bin");
    file.exists()
        .then_some(file)
        .ok_or_else(|| "envoy-types ships no src/generated/types.bin".into())
}
