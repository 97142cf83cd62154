//! Gateway.

use mesh_proto::kube::{Object, networking as api};

use super::port;
use crate::model::{
    Gateway, Host, Origin, Protocol, Selector, Server,
    gateway::{Clients, HostScope, ServerHost, ServerTls, ServerTlsMode, TlsVersion},
};

pub fn convert(object: &Object<api::Gateway>, origin: Origin) -> Gateway {
    Gateway {
        selector: Selector(object.spec.selector.clone()),
        servers: object.spec.servers.iter().map(server).collect(),
        origin,
    }
}

fn server(server: &api::Server) -> Server {
    let declared = server.port.clone().unwrap_or_default();
    Server {
        name: server.name.clone(),
        port: port(declared.number),
        port_name: declared.name,
        protocol: Protocol::declared(&declared.protocol).unwrap_or(Protocol::Tcp),
        bind: server.bind.parse().ok(),
        hosts: server.hosts.iter().map(|host| server_host(host)).collect(),
        tls: server.tls.as_ref().map(|tls| server_tls(tls, &declared.protocol)),
    }
}

fn server_host(text: &str) -> ServerHost {
    match text.split_once('/') {
        None => ServerHost {
            scope: HostScope::Any,
            host: Host::new(text),
        },
        Some((namespace, host)) => ServerHost {
            scope: scope(namespace),
            host: Host::new(host),
        },
    }
}

/// `*`, `.` or a namespace.
pub fn scope(namespace: &str) -> HostScope {
    match namespace {
        "*" => HostScope::Any,
        "." => HostScope::Own,
        name => HostScope::Namespace(name.to_owned()),
    }
}

pub fn server_tls(tls: &api::ServerTls, protocol: &str) -> ServerTls {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let encrypted = protocol.eq_ignore_ascii_case("HTTPS") || protocol.eq_ignore_ascii_case("TLS");
    let version = |version: Option<api::TlsVersion>| match version? {
        api::TlsVersion::Auto => None,
        api::TlsVersion::V1_0 => Some(TlsVersion::V1_0),
        api::TlsVersion::V1_1 => Some(TlsVersion::V1_1),
        api::TlsVersion::V1_2 => Some(TlsVersion::V1_2),
        api::TlsVersion::V1_3 => Some(TlsVersion::V1_3),
    };
    // The mode that is not said is the API's first.
    let mode = match tls.mode {
        _ if !encrypted => ServerTlsMode::None,
        None | Some(api::ServerTlsMode::Simple) => ServerTlsMode::Simple,
        Some(api::ServerTlsMode::Passthrough) => ServerTlsMode::Passthrough,
        Some(api::ServerTlsMode::Mutual) => ServerTlsMode::Mutual,
        Some(api::ServerTlsMode::OptionalMutual) => ServerTlsMode::OptionalMutual,
        Some(api::ServerTlsMode::AutoPassthrough) => ServerTlsMode::AutoPassthrough,
        Some(api::ServerTlsMode::IstioMutual) => ServerTlsMode::MeshMutual,
    };
    ServerTls {
        mode,
        https_redirect: tls.https_redirect,
        credentials: some(&tls.credential_name)
            .into_iter()
            .chain(tls.credential_names.iter().cloned())
            .collect(),
        files: files(tls),
        clients: Clients {
            ca_credential: some(&tls.ca_cert_credential_name),
            ca_certificates: some(&tls.ca_certificates).or_else(|| {
                let mut of_pairs = tls.tls_certificates.iter();
                of_pairs.find_map(|pair| some(&pair.ca_certificates))
            }),
            revoked: some(&tls.ca_crl),
            subject_alt_names: tls.subject_alt_names.clone(),
            key_hashes: tls.verify_certificate_spki.clone(),
            certificate_hashes: tls.verify_certificate_hash.clone(),
            accept_untrusted: tls.insecure_skip_verify.unwrap_or(false),
        },
        minimum: version(tls.min_protocol_version),
        maximum: version(tls.max_protocol_version),
        cipher_suites: tls.cipher_suites.clone(),
        curves: tls.ecdh_curves.clone(),
    }
}

fn files(tls: &api::ServerTls) -> Vec<(String, String)> {
    let one = (!tls.server_certificate.is_empty())
        .then(|| (tls.server_certificate.clone(), tls.private_key.clone()));
    let pairs = tls.tls_certificates.iter();
    let pairs = pairs.map(|pair| (pair.server_certificate.clone(), pair.private_key.clone()));
    one.into_iter().chain(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::testing::of_spec,
        model::{Item, Kind},
    };

    #[test]
    fn gateways() {
        let item = of_spec(
            Kind::Gateway,
            "selector: {istio: ingressgateway}\nservers:\n\
             - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*', ./A.example.com, other/*.b], tls: {httpsRedirect: true}}\n\
             - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a], tls: {mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3}}\n\
             - {port: {number: 444, name: tls, protocol: TLS}, hosts: [a], tls: {mode: PASSTHROUGH}}\n",
        );
        let Item::Gateway(gateway) = item else { panic!() };
        let [http, https, tls] = &gateway.servers[..] else {
            panic!()
        };
        assert!(http.is_http() && !http.terminates_tls() && http.tls.as_ref().unwrap().https_redirect);
        assert!(https.is_http() && https.terminates_tls() && !tls.is_http() && !tls.terminates_tls());
        let secure = https.tls.clone().unwrap();
        assert_eq!(
            (secure.credentials, secure.minimum),
            (vec!["c".to_owned()], Some(TlsVersion::V1_3))
        );
        let admits = |namespace: &str, host: &str| -> Vec<String> {
            http.admits(namespace, "ns", &Host::new(host))
                .into_iter()
                .map(Host::to_string)
                .collect()
        };
        assert_eq!(admits("ns", "a.example.com"), ["a.example.com"]);
        assert_eq!(admits("other", "*.b"), ["*.b"]);
        assert_eq!(admits("third", "*"), ["*"]);
    }
}
