//! What the program is told: which service to be, which version of it, and (by the environment variables of Istio's sample)
//! where the other services are.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;

#[derive(Debug, Parser)]
#[command(
    name = "bookinfo",
    disable_version_flag = true,
    about = "The Bookinfo sample: four small services in one program"
)]
pub struct Settings {
    #[command(subcommand)]
    pub service: Service,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Common {
    /// Address to listen on.
    #[arg(long, global = true, default_value = "0.0.0.0:9080")]
    pub listen: SocketAddr,
    /// Which version of the service to be (reviews: v1 no stars, v2 black, v3 red; ratings: v1 memory, v2 Redis).
    #[arg(long, global = true, env = "SERVICE_VERSION", default_value = "v1")]
    pub version: Version,
    /// After SIGTERM, how long new connections are still accepted, so that whoever has not heard yet is answered.
    #[arg(long, global = true, default_value_t = 5)]
    pub shutdown_delay_seconds: u64,
}

#[derive(Debug, Subcommand)]
pub enum Service {
    /// The page of the book: asks details and reviews.
    Productpage(Upstreams),
    /// Facts about the book.
    Details,
    /// What readers say; v2 and v3 ask ratings for stars.
    Reviews(RatingsAddress),
    /// The stars.
    Ratings(Store),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    V1,
    V2,
    V3,
}

/// Appended to every host name, after a dot; empty for none.
#[derive(Debug, Args)]
pub struct Domain {
    #[arg(long, env = "SERVICES_DOMAIN", default_value = "")]
    pub services_domain: String,
}

impl Domain {
    /// `reviews` and 9080 become `http://reviews.<domain>:9080`.
    pub fn base(&self, host: &str, port: u16) -> String {
        if self.services_domain.is_empty() {
            format!("http://{host}:{port}")
        } else {
            format!("http://{host}.{}:{port}", self.services_domain)
        }
    }
}

#[derive(Debug, Args)]
pub struct Upstreams {
    #[arg(long, env = "DETAILS_HOSTNAME", default_value = "details")]
    pub details_host: String,
    #[arg(long, env = "DETAILS_SERVICE_PORT", default_value_t = 9080)]
    pub details_port: u16,
    #[arg(long, env = "REVIEWS_HOSTNAME", default_value = "reviews")]
    pub reviews_host: String,
    #[arg(long, env = "REVIEWS_SERVICE_PORT", default_value_t = 9080)]
    pub reviews_port: u16,
    #[command(flatten)]
    pub ratings: RatingsAddress,
}

#[derive(Debug, Args)]
pub struct RatingsAddress {
    #[arg(long, env = "RATINGS_HOSTNAME", default_value = "ratings")]
    pub ratings_host: String,
    #[arg(long, env = "RATINGS_SERVICE_PORT", default_value_t = 9080)]
    pub ratings_port: u16,
    #[command(flatten)]
    pub domain: Domain,
}

#[derive(Debug, Args)]
pub struct Store {
    /// Where v2 keeps the stars.
    #[arg(long, env = "REDIS_URL", default_value = "redis://redis:6379/")]
    pub redis_url: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Settings::command().debug_assert();
    }

    #[test]
    fn a_domain_is_appended_after_a_dot() {
        let plain = Domain {
            services_domain: String::new(),
        };
        assert_eq!(plain.base("reviews", 9080), "http://reviews:9080");
        let other = Domain {
            services_domain: "books.svc.cluster.local".into(),
        };
        assert_eq!(
            other.base("reviews", 80),
            "http://reviews.books.svc.cluster.local:80"
        );
    }
}
