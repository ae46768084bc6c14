//! Flows of a real kernel, and what is stale.

use std::net::UdpSocket;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::backend::nft::Nft;
use crate::backend::rtnl::Rtnl;
use crate::backend::testing::in_new_netns;
use crate::rules::{self, Chain, ChainType, Hook, RuleBuilder, Table, ct_state};
use crate::service::Endpoint;

/// The kernel tracks only where a rule asks for it.
fn track() {
    let mut r = Rtnl::open().unwrap();
    let lo = r.link("lo").unwrap().index;
    r.set_up(lo).unwrap();
    let mut table = Table::new(rules::Family::Inet, "track");
    let rule = RuleBuilder::new().ct_state(ct_state::NEW).counter().build();
    table.chain(Chain::base("output", ChainType::Filter, Hook::Output, 0, [rule].to_vec()));
    Nft::open().unwrap().apply(&rules::sync(&table, None)).unwrap();
}

#[test]
fn a_flow_is_listed_and_forgotten() {
    in_new_netns(|| {
        track();
        for (client, server) in [("127.0.0.1:0", "127.0.0.1:4000"), ("[::1]:0", "[::1]:4001")] {
            let (client, server) = (UdpSocket::bind(client).unwrap(), UdpSocket::bind(server).unwrap());
            let to = server.local_addr().unwrap();
            client.send_to(b"?", to).unwrap();
            server.recv_from(&mut [0; 1]).unwrap();
            let mut conntrack = Conntrack::open().unwrap();
            let flows = conntrack.udp_flows().unwrap();
            let flow = flows.iter().find(|f| f.source == client.local_addr().unwrap()).unwrap();
            assert_eq!((flow.destination, flow.answers_from, flow.translated), (to, to, false));
            conntrack.forget(flow).unwrap();
            assert!(!conntrack.udp_flows().unwrap().contains(flow));
            conntrack.forget(flow).unwrap();

            let endpoint = |port| Endpoint { ip: to.ip(), port };
            let stale = |ip, port| StaleFlows { ip, port: to.port(), endpoints: [endpoint(port)].to_vec() };
            client.send_to(b"?", to).unwrap();
            let kept =
                [stale(Some(to.ip()), to.port()), stale(None, 1), stale(Some([10, 0, 0, 1].into()), 1)];
            assert_eq!(conntrack.forget_stale(&kept), Ok(0));
            assert_eq!(conntrack.forget_stale(&[stale(Some(to.ip()), 1)]), Ok(1));
        }
    });
}

proptest! {
    #[test]
    fn any_answer_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _: Option<Flow> = decode(&bytes);
        let nested: Vec<u8> = [&[0u8; 4][..], &[204, 0, 1, 128], &bytes].concat();
        let _: Option<Flow> = decode(&nested);
    }
}
