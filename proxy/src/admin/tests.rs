//! The pages as their readers see them, from a store that was filled the way xDS fills it.

use bytes::Bytes;
use mesh_proto::{
    envoy::{config::cluster::v3::Cluster, extensions::transport_sockets::tls::v3},
    xds::Type,
};
use prost::Message;

use super::*;
use crate::store::{Failure, State};

fn admin() -> Admin {
    Admin {
        store: Store::new(),
        stats: Stats::new(),
        identity: IdentityCell::new(),
        gates: Gates::new(),
        // One set-up of the logs per process: whichever test comes first.
        log: log(),
        commands: commands().0,
        connections: Connections::default(),
        node: None,
    }
}

fn log() -> LogHandle {
    static LOG: std::sync::OnceLock<LogHandle> = std::sync::OnceLock::new();
    LOG.get_or_init(|| mesh_runtime::log::init("test", "off", mesh_runtime::log::Format::Text).unwrap())
        .clone()
}

async fn text(response: Response) -> (u16, String) {
    use http_body_util::BodyExt;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn value(response: Response) -> Value {
    serde_json::from_str(&text(response).await.1).unwrap()
}

fn query(text: &str) -> Query {
    Query(text.to_owned())
}

#[test]
fn queries() {
    let q = query("filter=a%2Bb+c&usedonly&x=%zz");
    assert_eq!(q.get("filter").as_deref(), Some("a+b c"));
    assert_eq!(q.get("usedonly").as_deref(), Some(""));
    assert_eq!(q.get("x").as_deref(), Some("%zz"));
    assert_eq!(q.get("y"), None);
}

#[tokio::test]
async fn readiness_names_what_it_waits_for() {
    let admin = admin();
    let gate = admin.gates.gate("configuration");
    assert_eq!(
        text(server::ready(&admin, query("")).await).await,
        (503, "INITIALIZING\nwaiting for configuration\n".into())
    );
    gate.open();
    assert_eq!(
        text(server::ready(&admin, query("")).await).await,
        (200, "LIVE\n".into())
    );
    admin.store.close_listeners(false);
    assert_eq!(text(server::ready(&admin, query("")).await).await.0, 503);
}

#[tokio::test]
async fn dump_has_states_and_refusals_but_no_keys() {
    let admin = admin();
    let now = std::time::SystemTime::now();
    admin.store.ledger(|ledger| {
        let cluster = Cluster {
            name: "a".into(),
            ..Cluster::default()
        };
        let body = Bytes::from(cluster.encode_to_vec());
        ledger.taken(Type::Cluster, "a", body.clone(), "7", now, State::Active);
        ledger.taken(Type::Cluster, "b", body.clone(), "8", now, State::Warming);
        let failure = Failure {
            body,
            version: "9".into(),
            at: now,
            why: "lb_policy: is not known".into(),
        };
        ledger.refused(Type::Cluster, "a", failure);
        let key = "-----BEGIN PRIVATE KEY-----";
        let inline = |text: &str| mesh_proto::envoy::config::core::v3::DataSource {
            specifier: Some(
                mesh_proto::envoy::config::core::v3::data_source::Specifier::InlineString(text.into()),
            ),
            ..Default::default()
        };
        let certificate = v3::TlsCertificate {
            certificate_chain: Some(inline("the chain")),
            private_key: Some(inline(key)),
            ..Default::default()
        };
        let secret = v3::Secret {
            name: "s".into(),
            r#type: Some(v3::secret::Type::TlsCertificate(certificate)),
        };
        ledger.taken(
            Type::Secret,
            "s",
            Bytes::from(secret.encode_to_vec()),
            "1",
            now,
            State::Active,
        );
    });
    let (status, page) = text(dump::page(&admin, query("")).await).await;
    assert_eq!(status, 200);
    assert!(
        !page.contains("BEGIN PRIVATE KEY") && page.contains("the chain") && page.contains("[redacted]"),
        "{page}"
    );
    let json: Value = serde_json::from_str(&page).unwrap();
    let clusters = &json["configs"][0];
    assert_eq!(
        clusters["@type"],
        "type.googleapis.com/envoy.admin.v3.ClustersConfigDump"
    );
    let active = &clusters["dynamic_active_clusters"][0];
    assert_eq!(
        (&active["version_info"], &active["cluster"]["name"]),
        (&"7".into(), &"a".into())
    );
    assert_eq!(active["error_state"]["details"], "lb_policy: is not known");
    assert_eq!(clusters["dynamic_warming_clusters"][0]["version_info"], "8");
    let only = value(dump::page(&admin, query("resource=dynamic_active_clusters")).await).await;
    assert_eq!(only["configs"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        text(dump::page(&admin, query("resource=nothing")).await).await.0,
        400
    );
    let waiting = value(dump::waiting(&admin, query("")).await).await;
    assert_eq!(waiting["unready_targets_dumps"][0]["name"], "b");
}

#[tokio::test]
async fn stats_in_every_format() {
    let admin = admin();
    admin.stats.shard().cluster("c").answered(200);
    let (_, page) = text(stats::page(&admin, query("filter=upstream_rq_2xx&usedonly")).await).await;
    assert_eq!(page, "cluster.c.upstream_rq_2xx: 1\n");
    let page = value(stats::page(&admin, query("format=json&filter=server.live")).await).await;
    assert_eq!(page["stats"][0]["value"], 1);
    let (_, page) = text(stats::prometheus(&admin, query("")).await).await;
    assert!(page.contains("istio_build{component=\"proxy\""), "{page}");
    assert_eq!(text(stats::page(&admin, query("filter=(")).await).await.0, 400);
    assert_eq!(text(stats::page(&admin, query("format=xml")).await).await.0, 400);
}

#[tokio::test]
async fn quit_reaches_the_main_task() {
    let (sender, mut asked) = commands();
    let admin = Admin {
        commands: sender,
        ..admin()
    };
    assert_eq!(text(server::quit(&admin, query("")).await).await.0, 200);
    wait_for_end(&mut asked, std::future::pending()).await;
}

#[tokio::test]
async fn open_connections_are_listed() {
    use crate::observe::record::{Downstream, TlsFacts};
    let admin = admin();
    admin
        .stats
        .shard()
        .listener("0.0.0.0_15006")
        .downstream_cx_active
        .inc();
    let tls = TlsFacts {
        version: "TLSv1.3".into(),
        cipher: "".into(),
        server_name: None,
        alpn: None,
        peer_uris: vec!["spiffe://cluster.local/ns/default/sa/page".into()],
        local_uris: Vec::new(),
        peer_subject: None,
        peer_hash: "".into(),
        peer_leaf: None,
        local_leaf: None,
    };
    let worker = admin.connections.worker();
    let open: Vec<_> = (0..3)
        .map(|id| {
            worker.open(crate::conn::track::Note {
                worker: 0,
                facts: Arc::new(Downstream {
                    connection_id: id,
                    remote: ([10, 0, 0, 1], 4000).into(),
                    direct_remote: ([10, 0, 0, 1], 4000).into(),
                    local: ([10, 0, 0, 2], 9080).into(),
                    server_name: None,
                    tls: Some(tls.clone()),
                }),
                listener: "virtualInbound".into(),
                chain: "9080".into(),
                kind: "http",
                since: std::time::Instant::now(),
            })
        })
        .collect();
    let page = value(listeners::connections(&admin, query("format=json")).await).await;
    assert_eq!(page["open"]["listener.0.0.0.0_15006"], 1);
    assert_eq!(page["connections"].as_array().unwrap().len(), 3);
    assert_eq!(
        page["connections"][2]["tls"]["peer"],
        "spiffe://cluster.local/ns/default/sa/page"
    );
    let (_, page) = text(listeners::connections(&admin, query("limit=1")).await).await;
    assert!(
        page.contains("0 http 10.0.0.1:4000 -> 10.0.0.2:9080 virtualInbound 9080 TLSv1.3 spiffe"),
        "{page}"
    );
    assert!(page.ends_with("and 2 more\n"), "{page}");
    assert_eq!(
        text(listeners::connections(&admin, query("limit=x")).await)
            .await
            .0,
        400
    );
    drop(open);
    assert_eq!(
        text(listeners::connections(&admin, query("")).await).await.1,
        "listener.0.0.0.0_15006: 1\n"
    );
}
