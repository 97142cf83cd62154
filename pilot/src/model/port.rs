//! Ports of services and what is spoken on them.

use std::fmt;

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    /// TLS of the application's own, with HTTP inside: routed by server name only.
    Https,
    /// TLS of the application's own.
    Tls,
    Tcp,
    Mongo,
    Mysql,
    Redis,
    Udp,
    /// Not declared: the proxy finds out.
    Auto,
}

impl Protocol {
    /// A declared name: an `appProtocol`, the part of a port's name before the first `-`, or a ServiceEntry's
    /// or Gateway's `protocol`.
    pub fn declared(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" => Self::Http,
            "http2" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" | "kubernetes.io/wss" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "mysql" => Self::Mysql,
            "redis" => Self::Redis,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// The protocol of a Kubernetes Service's port: transport, then `appProtocol`, then the name's prefix, then ports
    /// of protocols in which the server speaks first.
    pub fn of_service_port(transport: &str, app_protocol: Option<&str>, name: &str, number: u16) -> Self {
        if transport.eq_ignore_ascii_case("UDP") || transport.eq_ignore_ascii_case("SCTP") {
            return Self::Udp;
        }
        if let Some(protocol) = app_protocol.and_then(Self::declared) {
            return protocol;
        }
        let lower = name.to_ascii_lowercase();
        if lower == "grpc-web" || lower.starts_with("grpc-web-") {
            return Self::GrpcWeb;
        }
        let prefix = lower.split('-').next().unwrap_or_default();
        Self::declared(prefix).unwrap_or(match number {
            // SMTP, DNS, MySQL and MongoDB: waiting for the client's first byte would wait forever.
            25 | 53 => Self::Tcp,
            3306 => Self::Mysql,
            27017 => Self::Mongo,
            _ => Self::Auto,
        })
    }

    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// HTTP/2 toward the application.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// The application's own TLS, which the mesh passes through.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Declared to be plain bytes over TCP.
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Mongo | Self::Mysql | Self::Redis)
    }

    pub fn is_auto(self) -> bool {
        self == Self::Auto
    }

    /// The server may speak first, so nothing may wait for the client's first byte.
    pub fn is_server_first(self) -> bool {
        matches!(self, Self::Mongo | Self::Mysql)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Mongo => "Mongo",
            Self::Mysql => "MySQL",
            Self::Redis => "Redis",
            Self::Udp => "UDP",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a service's port leads on its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetPort {
    Number(u16),
    /// The container port of that name.
    Name(String),
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    pub number: u16,
    /// May be empty when the service has only this port.
    pub name: String,
    pub protocol: Protocol,
    pub target: TargetPort,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_of_service_port() {
        let check = |app: Option<&str>, name: &str, number: u16, expect: Protocol| {
            assert_eq!(
                Protocol::of_service_port("TCP", app, name, number),
                expect,
                "{app:?} {name} {number}"
            );
        };
        check(None, "http", 9080, Protocol::Http);
        check(None, "http-web", 80, Protocol::Http);
        check(None, "HTTP2-x", 80, Protocol::Http2);
        check(None, "httpx", 80, Protocol::Auto);
        check(None, "grpc-web", 80, Protocol::GrpcWeb);
        check(None, "grpc-web-x", 80, Protocol::GrpcWeb);
        check(None, "grpc-x", 80, Protocol::Grpc);
        check(None, "", 80, Protocol::Auto);
        check(None, "", 3306, Protocol::Mysql);
        check(None, "db", 27017, Protocol::Mongo);
        check(Some("http"), "tcp-x", 80, Protocol::Http);
        check(Some("kubernetes.io/h2c"), "x", 80, Protocol::Http2);
        check(Some("example.com/own"), "tcp", 80, Protocol::Tcp);
        assert_eq!(
            Protocol::of_service_port("UDP", Some("http"), "http", 53),
            Protocol::Udp
        );
    }
}
