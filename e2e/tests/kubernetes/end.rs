//! Point 8: `meshctl uninstall --purge`: whatever is in the cluster now was there before the mesh. It is the last test.

use anyhow::ensure;
use mesh_e2e::{
    installed::{Installed, Listing},
    process::eventually,
};
use std::time::Duration;

pub fn nothing_is_left(mesh: &mut Installed) -> anyhow::Result<()> {
    ensure!(
        !Listing::take(mesh)?.beyond(&mesh.before).is_empty(),
        "the mesh is not there"
    );
    mesh.leave()?;
    // Kubernetes takes away by itself what belonged to something that is gone.
    eventually(Duration::from_secs(30), "nothing is left", || {
        let left = Listing::take(mesh)?.beyond(&mesh.before);
        ensure!(left.is_empty(), "left behind: {left:#?}");
        Ok(())
    })
}
