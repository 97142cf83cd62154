//! `bookinfo productpage|details|reviews|ratings`: one program, four services.

use anyhow::Context;
use bookinfo::{details, productpage, ratings, reviews, serve, settings};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let settings = settings::Settings::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let common = &settings.common;
        let (name, pages) = match &settings.service {
            settings::Service::Productpage(upstreams) => ("productpage", productpage::pages(upstreams)?),
            settings::Service::Details => ("details", details::pages()),
            settings::Service::Reviews(upstream) => ("reviews", reviews::pages(common.version, upstream)?),
            settings::Service::Ratings(store) => ("ratings", ratings::pages(common.version, store)?),
        };
        serve::run(name, common, pages).await
    })
}
