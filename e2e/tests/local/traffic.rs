//! 2. Weights, to the last request; and 3. what a rule says about retries and time-outs.

use anyhow::ensure;
use mesh_e2e::{
    client::load::{Report, now_ms},
    mesh::Mesh,
    site::Site,
};
use std::time::Duration;

const REVIEWS: &str = "/api/v1/products/0/reviews";

fn reviews(weights: &[(&str, u32)]) -> String {
    let routes: String = weights
        .iter()
        .map(|(subset, weight)| {
            format!("    - {{destination: {{host: reviews, subset: {subset}}}, weight: {weight}}}\n")
        })
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n  - route:\n{routes}"
    )
}

/// 2,000 requests at 80/20: three standard deviations are 3 * sqrt(2000 * 0.8 * 0.2) = 53.7.
pub fn weights_80_20(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply_file_acked("samples/bookinfo/networking/virtual-service-reviews-80-20.yaml")?;
    let report = mesh.load(REVIEWS, |load| {
        load.requests = 2000;
        load.label_json = Some("/podname".to_owned());
    })?;
    report.ensure_all_ok()?;
    let (v1, v2) = (
        report.labelled("reviews-v1").count,
        report.labelled("reviews-v2").count,
    );
    ensure!(v1 + v2 == 2000, "{v1} + {v2} of {:?}", report.labels);
    ensure!(
        (v1 as f64 - 1600.0).abs() <= 53.7,
        "{v1} of 2000 requests went to v1, expected 1600 +- 53"
    );
    mesh.delete_file("samples/bookinfo/networking/virtual-service-reviews-80-20.yaml")
}

/// Under load from 80/20 to 0/100: nothing fails, and no request that begins after the acknowledgement goes to v1.
pub fn weights_change_under_load(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply_acked(&reviews(&[("v1", 80), ("v2", 20)]))?;
    let load = mesh.load_in_background(REVIEWS, |load| {
        load.label_json = Some("/podname".to_owned());
        load.rate = Some(200.0);
        load.concurrency = 16;
    })?;
    std::thread::sleep(Duration::from_secs(2));
    mesh.apply_acked(&reviews(&[("v1", 0), ("v2", 100)]))?;
    let acked = now_ms();
    std::thread::sleep(Duration::from_secs(2));
    let report: Report = mesh.finish(load)?;
    report.ensure_all_ok()?;
    let (v1, v2) = (report.labelled("reviews-v1"), report.labelled("reviews-v2"));
    ensure!(
        v1.count > 0 && v2.count > 0,
        "both versions were asked: {:?}",
        report.labels
    );
    ensure!(
        v1.last_ms <= acked,
        "a request went to v1 that began {:.1} ms after the acknowledgement",
        v1.last_ms - acked
    );
    ensure!(v2.last_ms > acked, "no request after the acknowledgement");
    mesh.delete(&reviews(&[("v1", 100)]))
}

const RETRY: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo, namespace: e2e}
spec:
  hosts: [echo]
  http:
  - match: [{uri: {prefix: /mended}}]
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx'}
    route: [{destination: {host: echo}}]
  - match: [{uri: {prefix: /once}}]
    retries: {attempts: 0}
    route: [{destination: {host: echo}}]
  - match: [{uri: {prefix: /slow}}]
    timeout: 0.3s
    route: [{destination: {host: echo}}]
";

/// The server fails each key twice; three retries mend it, none does not, and five failures are too many.
pub fn retry(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply_acked(RETRY)?;
    let status = |path: &str| -> anyhow::Result<Report> {
        let url = format!("http://echo.e2e:8080{path}");
        mesh.client(
            "client",
            &["load", "--requests", "1", "--concurrency", "1", "--url", &url],
        )
    };
    let mended = status("/mended?fail_first=2&key=mended")?;
    ensure!(
        mended.by_status.get(&200) == Some(&1),
        "two failures, three retries: {mended:?}"
    );
    let too_many = status("/mended?fail_first=5&key=too-many")?;
    ensure!(
        too_many.by_status.get(&503) == Some(&1),
        "five failures, three retries: {too_many:?}"
    );
    let once = status("/once?fail_first=1&key=once")?;
    ensure!(
        once.by_status.get(&503) == Some(&1),
        "one failure, no retry: {once:?}"
    );
    Ok(())
}

/// The mesh's own answer says which object is responsible.
pub fn timeout_names_its_reason(mesh: &mut Mesh) -> anyhow::Result<()> {
    let url = "http://echo.e2e:8080/slow?delay_ms=3000";
    let report: Report = mesh.client(
        "client",
        &["load", "--requests", "1", "--concurrency", "1", "--url", url],
    )?;
    mesh.delete(RETRY)?;
    ensure!(
        report.by_status.get(&504) == Some(&1),
        "a time-out is answered 504: {report:?}"
    );
    let said = report.samples.join(" ").to_lowercase();
    ensure!(
        said.contains("virtualservice") && said.contains("e2e/echo"),
        "the answer names no object: {said}"
    );
    Ok(())
}
