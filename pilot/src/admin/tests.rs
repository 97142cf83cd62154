//! Pages over a hub with one proxy.

use super::*;
use crate::{
    metrics::Metrics,
    serve::proxy::Proxy,
    testing::{SERVICES, changes},
};

fn hub() -> Arc<Hub> {
    let hub = Arc::new(Hub::new(0, Metrics::default()));
    hub.apply(changes(SERVICES));
    let metadata = mesh_proto::node::NodeMetadata::default();
    let id = "sidecar~10.0.0.9~a-0.default~x".parse().unwrap();
    hub.connect(Arc::new(Proxy::new(&hub, 1, false, id, metadata, None)));
    hub
}

async fn text(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn pages_answer() {
    let hub = hub();
    let wanted = Wanted {
        proxy: Some("a-0.default".into()),
        object: None,
    };
    let (status, dump) = text(dump::page(&hub, &wanted)).await;
    assert_eq!(status, 200);
    let dump: Value = serde_json::from_str(&dump).unwrap();
    assert_eq!(
        dump["types"]["LDS"][0]["resource"]["@type"],
        "type.googleapis.com/envoy.config.listener.v3.Listener"
    );
    assert_eq!(dump["types"]["LDS"][0]["state"], "NOT SENT");
    let (status, hint) = text(dump::page(
        &hub,
        &Wanted {
            proxy: Some("b.x".into()),
            object: None,
        },
    ))
    .await;
    assert!(status == 404 && hint.contains("a-0.default"), "{hint}");
    let (_, sync) = text(sync::page(&hub, &Wanted::default())).await;
    assert!(sync.contains("\"proxy\":\"a-0.default\""), "{sync}");
    for page in [services, endpoints, objects, findings] {
        assert_eq!(text(page(&hub, &Wanted::default())).await.0, 200);
    }
}

#[tokio::test]
async fn acked_tells_what_it_was_asked() {
    let hub = hub();
    let ask = |object: Option<&str>| {
        acked::page(
            &hub,
            &Wanted {
                proxy: None,
                object: object.map(str::to_owned),
            },
        )
    };
    assert_eq!(text(ask(None)).await.0, 400);
    assert_eq!(text(ask(Some("nonsense/a/b"))).await.0, 400);
    assert_eq!(text(ask(Some("virtualservice/default/none"))).await.0, 404);
    let (status, answer) = text(ask(Some("service/default/reviews"))).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (status, &answer["acked"], &answer["in_effect"]),
        (200, &json!(true), &json!(true))
    );
}
