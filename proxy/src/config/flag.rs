//! Envoy's response flags: short words that say what went wrong with a request or a connection.
//! See <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags>.

use std::fmt;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident $short:literal $long:literal,)*) => {
        /// One response flag.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Flag { $($(#[$doc])* $name,)* }

        impl Flag {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As in `%RESPONSE_FLAGS%`.
            pub fn short(self) -> &'static str {
                match self { $(Self::$name => $short,)* }
            }

            /// As in `%RESPONSE_FLAGS_LONG%`.
            pub fn long(self) -> &'static str {
                match self { $(Self::$name => $long,)* }
            }
        }
    };
}

flags! {
    /// A local health check failed.
    FailedLocalHealthCheck "LH" "FailedLocalHealthCheck",
    /// No healthy upstream.
    NoHealthyUpstream "UH" "NoHealthyUpstream",
    /// The upstream took too long.
    UpstreamRequestTimeout "UT" "UpstreamRequestTimeout",
    /// Reset by this side.
    LocalReset "LR" "LocalReset",
    /// Reset by the upstream.
    UpstreamRemoteReset "UR" "UpstreamRemoteReset",
    /// Could not connect to the upstream.
    UpstreamConnectionFailure "UF" "UpstreamConnectionFailure",
    /// The upstream closed the connection.
    UpstreamConnectionTermination "UC" "UpstreamConnectionTermination",
    /// A circuit breaker is open.
    UpstreamOverflow "UO" "UpstreamOverflow",
    /// No route.
    NoRouteFound "NR" "NoRouteFound",
    /// A fault filter delayed it.
    DelayInjected "DI" "DelayInjected",
    /// A fault filter aborted it.
    FaultInjected "FI" "FaultInjected",
    /// A rate limit refused it.
    RateLimited "RL" "RateLimited",
    /// An authorization service refused it.
    UnauthorizedExternalService "UAEX" "UnauthorizedExternalService",
    /// The rate-limit service failed.
    RateLimitServiceError "RLSE" "RateLimitServiceError",
    /// The downstream closed the connection.
    DownstreamConnectionTermination "DC" "DownstreamConnectionTermination",
    /// All retries, or all connection attempts, were used up.
    UpstreamRetryLimitExceeded "URX" "UpstreamRetryLimitExceeded",
    /// Nothing moved for too long.
    StreamIdleTimeout "SI" "StreamIdleTimeout",
    /// An Envoy header had an invalid value.
    InvalidEnvoyHeaders "IH" "InvalidEnvoyRequestHeaders",
    /// The downstream broke the protocol.
    DownstreamProtocolError "DPE" "DownstreamProtocolError",
    /// The upstream broke the protocol.
    UpstreamProtocolError "UPE" "UpstreamProtocolError",
    /// The stream lived too long.
    MaxStreamDuration "UMSDR" "UpstreamMaxStreamDurationReached",
    /// Answered from a cache.
    ResponseFromCache "RFCF" "ResponseFromCacheFilter",
    /// The filter's configuration is missing.
    NoFilterConfig "NFCF" "NoFilterConfigFound",
    /// The request or the connection lived too long.
    DurationTimeout "DT" "DurationTimeout",
    /// No cluster of that name.
    NoCluster "NC" "NoClusterFound",
    /// Ended by overload protection.
    OverloadManager "OM" "OverloadManagerTerminated",
    /// Host names could not be resolved.
    DnsFailure "DF" "DnsResolutionFailed",
    /// The downstream reset the stream.
    DownstreamRemoteReset "DR" "DownstreamRemoteReset",
}

impl Flag {
    /// The flag with this short name.
    pub fn named(short: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|flag| flag.short() == short)
    }
}

/// A set of response flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

impl Flags {
    pub const fn none() -> Self {
        Self(0)
    }

    pub const fn of(flag: Flag) -> Self {
        Self(1 << flag as u8)
    }

    pub fn add(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u8;
    }

    pub fn has(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u8) != 0
    }

    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.iter().copied().filter(move |flag| self.has(*flag))
    }
}

/// The short names, separated by commas; `-` for none.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (n, flag) in self.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.short())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for flag in Flag::ALL {
            assert_eq!(Flag::named(flag.short()), Some(*flag));
        }
        assert!(Flag::ALL.len() <= 32);
        assert_eq!(Flag::named("XX"), None);
    }

    #[test]
    fn a_set_prints_as_envoy_does() {
        let mut flags = Flags::none();
        assert_eq!(flags.to_string(), "-");
        flags.add(Flag::UpstreamRetryLimitExceeded);
        flags.add(Flag::UpstreamConnectionFailure);
        assert_eq!(flags.to_string(), "UF,URX");
    }
}
