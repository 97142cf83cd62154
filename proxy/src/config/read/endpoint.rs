//! Endpoints of a cluster.

use std::{mem::take, sync::Arc};

use mesh_proto::{
    envoy::config::{
        core::v3::{self as core, HealthStatus},
        endpoint::v3 as pb,
    },
    names,
    node::to_json,
};

use super::{At, Result, done, each, number, refuse, required, scalar, unsupported};
use crate::config::endpoint::{Assignment, Endpoint, Health, Locality, LocalityEndpoints, WorkloadName};

const OVERPROVISIONING: u32 = 140;

pub fn assignment(mut value: pb::ClusterLoadAssignment) -> Result<Assignment> {
    let mut policy = take(&mut value.policy).unwrap_or_default();
    let assignment = Assignment {
        cluster: take(&mut value.cluster_name).into(),
        localities: each(take(&mut value.endpoints), "endpoints", locality)?,
        overprovisioning: number(&mut policy.overprovisioning_factor)
            .unwrap_or(OVERPROVISIONING)
            .max(100),
    };
    // An assignment stays until it is replaced.
    policy.endpoint_stale_after = None;
    done(&policy).at("policy")?;
    done(&value)?;
    Ok(assignment)
}

fn locality(mut value: pb::LocalityLbEndpoints) -> Result<LocalityEndpoints> {
    let place = take(&mut value.locality).unwrap_or_default();
    let locality = LocalityEndpoints {
        priority: take(&mut value.priority),
        weight: number(&mut value.load_balancing_weight),
        locality: Locality {
            region: place.region.into(),
            zone: place.zone.into(),
            sub_zone: place.sub_zone.into(),
        },
        endpoints: each(take(&mut value.lb_endpoints), "lb_endpoints", |one| {
            endpoint(one).map(Arc::new)
        })?,
    };
    value.metadata = None;
    value.proximity = None;
    done(&value)?;
    Ok(locality)
}

fn endpoint(mut value: pb::LbEndpoint) -> Result<Endpoint> {
    let mut inner = match required(take(&mut value.host_identifier), "endpoint")? {
        pb::lb_endpoint::HostIdentifier::Endpoint(endpoint) => endpoint,
        pb::lb_endpoint::HostIdentifier::EndpointName(_) => return unsupported("endpoint_name"),
    };
    let metadata = take(&mut value.metadata);
    let weight = number(&mut value.load_balancing_weight).unwrap_or(1);
    if weight == 0 {
        return refuse("must be at least 1").at("load_balancing_weight");
    }
    let address = required(take(&mut inner.address), "endpoint.address")?;
    let endpoint = Endpoint {
        address: scalar::address(address).at("endpoint.address")?,
        hostname: take(&mut inner.hostname).into(),
        weight,
        health: match HealthStatus::try_from(take(&mut value.health_status)) {
            Ok(HealthStatus::Unknown | HealthStatus::Healthy) => Health::Healthy,
            Ok(HealthStatus::Degraded) => Health::Degraded,
            Ok(HealthStatus::Draining) => Health::Draining,
            Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Health::Unhealthy,
            Err(_) => return refuse("is not known").at("health_status"),
        },
        labels: metadata
            .as_ref()
            .and_then(|metadata| {
                metadata
                    .filter_metadata
                    .get(names::metadata::TRANSPORT_SOCKET_MATCH)
            })
            .map(|labels| scalar::labels(labels).collect())
            .unwrap_or_default(),
        workload: metadata.as_ref().and_then(workload).map(Arc::new),
    };
    // For active health checks, which clusters are refused with.
    inner.health_check_config = None;
    inner.observability_name.clear();
    done(&inner).at("endpoint")?;
    done(&value)?;
    Ok(endpoint)
}

/// `filter_metadata.istio.workload`: `workload;namespace;canonical name;canonical revision;cluster`
fn workload(metadata: &core::Metadata) -> Option<WorkloadName> {
    let value = metadata
        .filter_metadata
        .get(names::metadata::ISTIO)?
        .fields
        .get("workload")?;
    let json = to_json(value);
    let mut parts = json.as_str()?.split(';');
    let mut part = || parts.next().unwrap_or_default().into();
    Some(WorkloadName {
        workload: part(),
        namespace: part(),
        canonical_name: part(),
        canonical_revision: part(),
        cluster: part(),
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{endpoint::Health, read::testing::assignment, scalar::Address};

    #[test]
    fn an_endpoint_as_pilot_sends_it() {
        let assignment = assignment(
            r#"
            cluster_name: outbound|9080||reviews.default.svc.cluster.local
            endpoints:
            - locality: {region: r}
              priority: 1
              lb_endpoints:
              - endpoint: {address: {socket_address: {address: 10.244.0.7, port_value: 9080}}}
                health_status: DRAINING
                metadata:
                  filter_metadata:
                    envoy.transport_socket_match: {tlsMode: istio}
                    istio: {workload: reviews-v1;default;reviews;v1;Kubernetes}
              - endpoint: {address: {socket_address: {address: example.com, port_value: 443}}, hostname: h}
            "#,
        );
        let locality = &assignment.localities[0];
        assert_eq!((locality.priority, &*locality.locality.region), (1, "r"));
        let first = &locality.endpoints[0];
        assert_eq!(first.health, Health::Draining);
        assert_eq!(first.labels.get("tlsMode").map(|value| &**value), Some("istio"));
        let workload = first.workload.as_ref().unwrap();
        assert_eq!(
            (&*workload.workload, &*workload.cluster),
            ("reviews-v1", "Kubernetes")
        );
        assert_eq!(
            locality.endpoints[1].address,
            Address::Name {
                host: "example.com".into(),
                port: 443
            }
        );
    }
}
