//! Files that are generated from the types are as the types are now. `UPDATE=1` writes them anew.

use std::{env, fs, path::Path};

use mesh_proto::kube::{crd, support};

/// `path` is relative to the repository.
fn check(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder that can be made");
        fs::write(&file, text).expect("a file that can be written");
        return;
    }
    let current = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        current == text,
        "{path} is not what the types say; write it anew: UPDATE=1 cargo test -p mesh-proto generated"
    );
}

#[test]
fn generated_definitions() {
    check("charts/base/crds/crd-all.gen.yaml", &crd::yaml().unwrap());
}

#[test]
fn generated_page() {
    check("docs/reference/api-support.md", &support::page());
}
