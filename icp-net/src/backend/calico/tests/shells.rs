//! The loops of a node, as a daemon runs them.
#![expect(clippy::disallowed_methods, reason = "a test of loops on a real clock polls with a pause")]

use std::boxed::Box;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec::Vec;

use async_trait::async_trait;
use icp_core::client::{ApiError, ApiRequest, Client, EventStream, Operation, Reply};
use tokio::sync::watch;

use super::api::Api;
use super::cluster::{POD_NETWORK, node_object, service_objects};
use super::lab::{Lab, Server, namespace, path};
use crate::backend::calico::{NodeNetwork, NodeNetworkConfig};
use crate::backend::testing::in_new_netns;
use crate::{calico::route, service};

/// An API server whose objects stay as they are.
struct Still {
    api: Api,
    patches: Mutex<Vec<ApiRequest>>,
}

#[async_trait]
impl Client for Still {
    async fn request(&self, request: ApiRequest) -> Result<Reply, ApiError> {
        if matches!(request.op, Operation::List(_)) {
            return Ok(self.api.list(&request.gvr.resource));
        }
        self.patches.lock().unwrap().push(request);
        Err(ApiError::Unreachable("read only".into()))
    }

    async fn watch(&self, _: ApiRequest) -> Result<EventStream, ApiError> {
        Ok(Box::pin(futures_util::stream::pending()))
    }
}

#[test]
fn the_daemons_of_a_node_make_its_network() {
    in_new_netns(|| {
        let lab = Lab::new(&["a", "b"]);
        let (a, b) = (lab.machine("a"), lab.machine("b"));
        let network_b = b.network("b");
        let far = namespace();
        let far_ip = network_b.attach("far", &path(&far)).unwrap()[0];
        b.inside(|| {
            let mut r = crate::backend::rtnl::Rtnl::open().unwrap();
            let back = crate::backend::rtnl::Route::via("10.244.1.0/24".parse().unwrap(), a.ip.into());
            r.add_route(&back).unwrap();
        });
        let mut api = Api::default();
        for name in ["a", "b"] {
            api.put(&node_object(name, lab.machine(name)));
        }
        for object in service_objects("10.96.0.1", 30080, &[(far_ip, "b")]) {
            api.put(&object);
        }
        let client = Arc::new(Still { api, patches: Mutex::default() });
        let config = NodeNetworkConfig::new("a", &a.state.0);
        let network = Arc::new(a.inside(|| NodeNetwork::new(config).unwrap()));

        let pods = [POD_NETWORK.parse().unwrap()].to_vec();
        let proxy = service::Config { pod_networks: pods.clone(), ..service::Config::new("a") };
        let routes = route::Config { pod_networks: pods, ..route::Config::new("a") };
        let learn = Arc::clone(&network);
        let learn = move |nets: Vec<_>| learn.set_pod_networks(&nets).unwrap();
        let server = Server::start(&far, 8080);
        let pod = namespace();
        a.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (stop, stopped) = watch::channel(false);
            let shared: Arc<dyn Client> = client.clone();
            let report = |e: &str| panic!("{e}");
            let proxy = service::shell::run(proxy, Arc::clone(&shared), stopped.clone(), report);
            let routes = route::shell::run(routes, shared, stopped, learn, report);
            let check = async {
                let service: SocketAddr = "10.96.0.1:80".parse().unwrap();
                let mut attached = None;
                for _ in 0..500 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    if attached.is_none() {
                        attached = network.attach("near", &path(&pod)).ok();
                    }
                    let patched = !client.patches.lock().unwrap().is_empty();
                    if let (Some(ips), true) = (&attached, patched)
                        && server.call(&pod, service) == Ok(ips[0])
                    {
                        stop.send(true).unwrap();
                        return true;
                    }
                }
                stop.send(true).unwrap();
                false
            };
            let (proxy, routes, reached) = runtime.block_on(async { tokio::join!(proxy, routes, check) });
            assert_eq!((proxy, routes), (Ok(()), Ok(())));
            assert!(reached, "the pod did not reach the service in time");
        });
        // What they made stays when they end.
        assert!(server.call(&pod, (far_ip, 8080).into()).is_ok());
    });
}
