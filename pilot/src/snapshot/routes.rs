//! VirtualServices by the place where they apply, oldest first.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{GatewayRef, VirtualService, World};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    by_gateway: BTreeMap<GatewayRef, Vec<Arc<VirtualService>>>,
}

impl Routes {
    pub fn new(world: &World) -> Self {
        let mut index = Self::default();
        for route in world.virtual_services.values() {
            for gateway in &route.gateways {
                index
                    .by_gateway
                    .entry(gateway.clone())
                    .or_default()
                    .push(route.clone());
            }
        }
        for routes in index.by_gateway.values_mut() {
            routes.sort_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()));
        }
        index
    }

    pub fn at(&self, gateway: &GatewayRef) -> &[Arc<VirtualService>] {
        self.by_gateway.get(gateway).map_or(&[], Vec::as_slice)
    }
}
