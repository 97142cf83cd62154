//! Objects in, lines out.

use mesh_proto::kube::yaml;

use super::*;

const OBJECTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: reviews-v2-0, namespace: shop, labels: {app: reviews, version: v2}}
spec:
  initContainers: [{name: istio-proxy, image: p, restartPolicy: Always}]
  containers: [{name: app, image: i, ports: [{containerPort: 9080}]}]
status: {phase: Running, podIP: 10.0.0.1, containerStatuses: [{name: app, ready: false}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop, labels: {app: bare}}
spec: {containers: [{name: app, image: i}]}
status: {phase: Running, podIP: 10.0.0.2}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.1.0.1, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    timeout: 2s
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside, namespace: shop}
spec: {hosts: [reviews.example.com], gateways: [front], http: [{route: [{destination: {host: reviews}}]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec: {selector: {matchLabels: {app: reviews}}, action: DENY, rules: [{}]}
";

fn understood() -> (Understood, Vec<Value>) {
    let (manifests, findings) = yaml::manifests(OBJECTS, "t");
    assert!(findings.is_empty(), "{findings:?}");
    let pods = manifests
        .iter()
        .take(2)
        .map(|manifest| manifest.value.clone())
        .collect();
    (Understood::new(manifests), pods)
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
}

#[test]
fn a_pod() {
    let (mesh, pods) = understood();
    let text = pod(&mesh, &pods[0], false);
    has(
        &text,
        &[
            "Pod: reviews-v2-0.shop\n",
            "   Pod Ports: 9080 (app)\n",
            "WARNING: Container app NOT READY\n",
            "Service: reviews.shop\n",
            "   Port: http 9080/HTTP targets pod port 9080\n",
            "DestinationRule: reviews.shop for \"reviews.shop.svc.cluster.local\"\n",
            "   Matching subsets: v2\n      (Non-matching subsets v1)\n",
            "   Traffic Policy TLS Mode: ISTIO_MUTUAL\n",
            "VirtualService: reviews.shop\n",
            "   Match: when headers are end-user=jason\n      timeout 2s\n",
            "   1 additional destination(s) that will not reach this pod\n",
            "Exposed on gateway shop/front: http://reviews.example.com:80\n",
            "   Workload mTLS mode: STRICT\n",
            "   shop/strict\n",
            "   shop/readers (Deny)\n",
        ],
    );
}

#[test]
fn a_pod_without_a_sidecar() {
    let (mesh, pods) = understood();
    let text = pod(&mesh, &pods[1], false);
    has(&text, &["WARNING: bare.shop is not part of mesh"]);
    assert!(!text.contains("PeerAuthentication"), "{text}");
    has(
        &pod(&mesh, &pods[1], true),
        &["No Service leads to it.", "Workload mTLS mode: STRICT"],
    );
}

#[test]
fn a_service() {
    let (mesh, _) = understood();
    let reviews = mesh.world().services.values().next().unwrap();
    let text = service(&mesh, reviews);
    has(
        &text,
        &[
            "Subsets: v1,v2",
            "All of its 1 pods have a sidecar.",
            "   All requests\n",
        ],
    );
}
