//! Servers that answer, are slow, lie, lose packets or are gone, in virtual time.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use icp_core::base::{Duration, Machine as _, Rng, SeededEntropy, Time};
use proptest::prelude::*;

use crate::dns::forward::{ExchangeId, ForwardEffect, ForwardEvent, ForwardMachine};
use crate::dns::wire::{CLASS_IN, Header, Message, Name, Question, Record, Section, rcode, rtype};
use crate::dns::{ForwardConfig, Forwarded, Metrics, Policy, Source, Transport};

type Effect = ForwardEffect<u32>;

struct Lab {
    machine: ForwardMachine<u32>,
    metrics: Arc<Metrics>,
    now: Time,
    exchanges: BTreeMap<ExchangeId, (SocketAddr, Transport, Message)>,
    /// Answers to clients, in order.
    replies: Vec<(u32, Message, Source)>,
    looping: Vec<SocketAddr>,
}

fn address(n: u8) -> SocketAddr {
    ([192, 0, 2, n], 53).into()
}

/// A machine with servers, whose loop checks were answered.
fn lab(servers: u8, change: impl FnOnce(&mut ForwardConfig)) -> Lab {
    let mut config = ForwardConfig::new((0..servers).map(address).collect());
    config.policy = Policy::Sequential;
    change(&mut config);
    let metrics = Arc::new(Metrics::new("."));
    let entropy = Box::new(SeededEntropy::new(Rng::new(3)));
    let mut lab = Lab {
        machine: ForwardMachine::new(config, entropy, Arc::clone(&metrics)),
        metrics,
        now: Time::from_secs(100),
        exchanges: BTreeMap::new(),
        replies: Vec::new(),
        looping: Vec::new(),
    };
    lab.wake();
    for exchange in lab.exchanges.keys().copied().collect::<Vec<_>>() {
        assert_eq!(lab.exchanges[&exchange].2.question.rtype, rtype::HINFO);
        lab.reply(exchange, rcode::NXDOMAIN, &[]);
    }
    assert_eq!((lab.machine.in_flight(), lab.machine.deadline()), (0, None));
    lab
}

fn query(name: &str, id: u16) -> Forwarded {
    Forwarded {
        id,
        flags: Header::RECURSION_DESIRED,
        question: Question { name: name.parse().unwrap(), rtype: rtype::A, class: CLASS_IN },
        edns: Some(crate::dns::wire::Edns { udp_bytes: 1232, ..Default::default() }),
        limit_bytes: 1232,
        aliases: Vec::new(),
        alias_ttl_secs: 5,
    }
}

fn a(name: &str, ttl_secs: u32) -> (Section, Record) {
    let record = Record {
        name: name.parse().unwrap(),
        rtype: rtype::A,
        class: CLASS_IN,
        ttl_secs,
        data: [1, 2, 3, 4].into(),
    };
    (Section::Answer, record)
}

fn soa(ttl_secs: u32, minimum: u32) -> (Section, Record) {
    let mut data = [0; 22].to_vec();
    data[18..].copy_from_slice(&minimum.to_be_bytes());
    let record = Record { name: Name::root(), rtype: rtype::SOA, class: CLASS_IN, ttl_secs, data };
    (Section::Authority, record)
}

impl Lab {
    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Exchange { exchange, upstream, transport, packet } => {
                    let message = Message::decode(&packet).unwrap();
                    assert!(self.exchanges.insert(exchange, (upstream, transport, message)).is_none());
                }
                Effect::Abandon { exchange } => assert!(self.exchanges.remove(&exchange).is_some()),
                Effect::Respond { client, packet, note } => {
                    self.replies.push((client, Message::decode(&packet).unwrap(), note.source));
                }
                Effect::Looping { upstream } => self.looping.push(upstream),
            }
        }
    }

    fn tell(&mut self, event: ForwardEvent<u32>) {
        let mut out = Vec::new();
        self.machine.on(self.now, event, &mut out);
        self.perform(out);
    }

    fn wake(&mut self) {
        let mut out = Vec::new();
        self.machine.wake(self.now, &mut out);
        self.perform(out);
    }

    fn ask(&mut self, client: u32, query: Forwarded) {
        self.tell(ForwardEvent::Query { client, query });
    }

    /// The one exchange for a client that is under way.
    fn only(&self) -> (ExchangeId, SocketAddr, Transport) {
        let mut of_clients = self.exchanges.iter().filter(|(_, (_, _, m))| m.question.rtype == rtype::A);
        let (exchange, (upstream, transport, _)) = of_clients.next().expect("an exchange");
        assert!(of_clients.next().is_none(), "more than one exchange");
        (*exchange, *upstream, *transport)
    }

    fn answer_to(&self, exchange: ExchangeId, rcode: u16, records: &[(Section, Record)]) -> Message {
        let mut message = self.exchanges[&exchange].2.clone();
        message.header.flags |= Header::RESPONSE;
        message.header.rcode = rcode;
        message.records = records.to_vec();
        message
    }

    fn send(&mut self, exchange: ExchangeId, message: &Message) {
        let mut packet = Vec::new();
        message.encode(65_535, None, &mut packet);
        self.tell(ForwardEvent::Packet { exchange, packet });
    }

    fn reply(&mut self, exchange: ExchangeId, rcode: u16, records: &[(Section, Record)]) {
        let message = self.answer_to(exchange, rcode, records);
        self.send(exchange, &message);
    }

    /// Passes time, deadline by deadline.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        for _ in 0..1000 {
            match self.machine.deadline() {
                Some(due) if due <= until => {
                    self.now = self.now.max(due);
                    self.wake();
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn codes(&self) -> Vec<(u32, u16, Vec<u16>)> {
        self.replies.iter().map(|(c, m, _)| (*c, m.header.rcode, m.extended_errors.clone())).collect()
    }
}

#[test]
fn equal_questions_are_asked_once_and_each_client_sees_its_own() {
    let mut lab = lab(1, |_| {});
    lab.ask(1, query("www.example.test", 11));
    lab.ask(2, query("WWW.example.TEST", 22));
    let (exchange, upstream, transport) = lab.only();
    assert_eq!((upstream, transport), (address(0), Transport::Udp));
    lab.reply(exchange, 0, &[a("www.example.test", 60)]);
    let shown = |n: usize, lab: &Lab| {
        let (client, message, source) = &lab.replies[n];
        assert!(
            message.header.has(Header::RESPONSE | Header::RECURSION_AVAILABLE | Header::RECURSION_DESIRED)
        );
        assert!(!message.header.has(Header::AUTHORITATIVE));
        let record = &message.records[0].1;
        assert_eq!(record.name, message.question.name);
        (*client, message.header.id, alloc::format!("{}", message.question.name), record.ttl_secs, *source)
    };
    assert_eq!(shown(0, &lab), (1, 11, "www.example.test.".into(), 60, Source::Forward));
    assert_eq!(shown(1, &lab), (2, 22, "WWW.example.TEST.".into(), 60, Source::Forward));
    // From memory, older; then no more.
    lab.pass(Duration::from_secs(59));
    lab.ask(3, query("www.EXAMPLE.test", 33));
    assert_eq!(shown(2, &lab), (3, 33, "www.EXAMPLE.test.".into(), 1, Source::Cache));
    lab.pass(Duration::from_secs(1));
    lab.ask(4, query("www.example.test", 44));
    assert_eq!((lab.replies.len(), lab.exchanges.len()), (3, 1));
    assert!(
        lab.metrics
            .text()
            .contains("coredns_cache_hits_total{server=\".\",type=\"success\",zones=\".\"} 1\n")
    );
}

#[test]
fn silence_leads_to_the_next_server_and_at_last_to_servfail() {
    let mut lab = lab(3, |_| {});
    lab.ask(1, query("x.test", 1));
    for n in 0..2 {
        assert_eq!(lab.only().1, address(n));
        lab.pass(Duration::from_secs(2));
    }
    assert_eq!(lab.only().1, address(2));
    assert!(lab.replies.is_empty());
    // Five seconds are all there is.
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.codes(), [(1, rcode::SERVFAIL, Vec::from([22]))]);
}

#[test]
fn a_lost_packet_is_sent_again_to_the_only_server() {
    let mut lab = lab(1, |_| {});
    lab.ask(1, query("x.test", 1));
    let (first, ..) = lab.only();
    lab.pass(Duration::from_secs(2));
    let (second, ..) = lab.only();
    assert_ne!(first, second);
    // The answer of the first exchange comes too late for it.
    lab.tell(ForwardEvent::Packet { exchange: first, packet: Vec::new() });
    lab.reply(second, 0, &[a("x.test", 60)]);
    assert_eq!(lab.codes(), [(1, 0, Vec::new())]);
}

#[test]
fn what_does_not_answer_the_question_is_not_taken() {
    let mut lab = lab(1, |_| {});
    lab.ask(1, query("x.test", 1));
    let (exchange, ..) = lab.only();
    let good = lab.answer_to(exchange, 0, &[a("x.test", 60)]);
    let mut wrong: Vec<Message> = (0..5).map(|_| good.clone()).collect();
    wrong[0].header.id ^= 1;
    wrong[1].header.flags &= !Header::RESPONSE;
    wrong[2].question.name = "y.test".parse().unwrap();
    wrong[3].question.rtype = rtype::AAAA;
    wrong[4].header.flags |= 0x0800;
    for message in &wrong {
        lab.send(exchange, message);
    }
    lab.tell(ForwardEvent::Packet { exchange, packet: b"noise".to_vec() });
    assert!(lab.replies.is_empty());
    lab.send(exchange, &good);
    assert_eq!(lab.codes(), [(1, 0, Vec::new())]);
}

#[test]
fn a_truncated_answer_is_had_over_tcp() {
    let mut lab = lab(2, |_| {});
    lab.ask(1, query("x.test", 1));
    let (exchange, ..) = lab.only();
    let mut cut = lab.answer_to(exchange, 0, &[]);
    cut.header.flags |= Header::TRUNCATED;
    lab.send(exchange, &cut);
    let (exchange, upstream, transport) = lab.only();
    assert_eq!((upstream, transport), (address(0), Transport::Tcp));
    // Noise in a stream ends it, and the next server is asked.
    lab.tell(ForwardEvent::Packet { exchange, packet: b"noise".to_vec() });
    let (exchange, upstream, transport) = lab.only();
    assert_eq!((upstream, transport), (address(1), Transport::Udp));
    let many: Vec<_> = (0..100).map(|n| a(&alloc::format!("n{n}.test"), 60)).collect();
    lab.reply(exchange, 0, &many);
    // It does not fit the client's datagram either.
    assert!(lab.replies[0].1.header.has(Header::TRUNCATED));
}

#[test]
fn a_server_that_fails_is_probed_and_passed_over() {
    let mut lab = lab(2, |c| c.attempt = Duration::from_millis(400));
    lab.ask(1, query("x.test", 1));
    let (exchange, ..) = lab.only();
    lab.tell(ForwardEvent::Failed { exchange });
    // The other is asked at once, and the first probed.
    assert_eq!(lab.only().1, address(1));
    let probe = |lab: &Lab| {
        lab.exchanges.iter().find(|(_, (_, _, m))| m.question.rtype == rtype::NS).map(|(e, x)| (*e, x.0))
    };
    assert_eq!(probe(&lab).unwrap().1, address(0));
    let (exchange, ..) = lab.only();
    lab.reply(exchange, 0, &[a("x.test", 60)]);
    // Two probes are lost: it counts as down.
    lab.pass(Duration::from_secs(2));
    lab.ask(2, query("y.test", 2));
    assert_eq!(lab.only().1, address(1));
    let (exchange, ..) = lab.only();
    lab.reply(exchange, 0, &[a("y.test", 60)]);
    // It answers a probe: it is asked again, and probed no more.
    lab.pass(Duration::from_millis(100));
    let (exchange, _) = probe(&lab).expect("a probe");
    lab.reply(exchange, rcode::REFUSED, &[]);
    assert_eq!(lab.machine.deadline(), None);
    lab.ask(3, query("z.test", 3));
    assert_eq!(lab.only().1, address(0));
}

#[test]
fn too_much_is_refused() {
    let mut lab = lab(1, |c| {
        c.in_flight_max = 2;
        c.clients_max = 3;
    });
    for (client, name) in [(1, "a.test"), (2, "b.test"), (3, "c.test"), (4, "a.test"), (5, "a.test")] {
        lab.ask(client, query(name, 1));
    }
    assert_eq!(lab.codes(), [(3, rcode::REFUSED, Vec::from([18])), (5, rcode::REFUSED, Vec::from([18]))]);
    assert!(lab.metrics.text().contains("coredns_forward_max_concurrent_rejects_total{server=\".\"} 2\n"));
    // Who leaves makes place.
    lab.pass(Duration::from_secs(10));
    lab.ask(6, query("c.test", 1));
    assert!(lab.codes().iter().all(|(client, ..)| *client != 6));
}

#[test]
fn with_nobody_to_ask_the_answer_says_so() {
    let mut lonely = lab(1, |c| c.own = Vec::from([address(0)]));
    lonely.ask(1, query("x.test", 1));
    assert_eq!(lonely.codes(), [(1, rcode::SERVFAIL, Vec::from([20]))]);
}

#[test]
fn a_server_that_sends_queries_back_is_asked_no_more() {
    let mut config = ForwardConfig::new((0..2).map(address).collect());
    config.policy = Policy::Sequential;
    let mut lab = Lab {
        machine: ForwardMachine::new(
            config,
            Box::new(SeededEntropy::new(Rng::new(3))),
            Arc::new(Metrics::new(".")),
        ),
        metrics: Arc::new(Metrics::new(".")),
        now: Time::ZERO,
        exchanges: BTreeMap::new(),
        replies: Vec::new(),
        looping: Vec::new(),
    };
    lab.wake();
    // The first server's check comes back as a client's query.
    let (_, _, check) =
        lab.exchanges.values().find(|(upstream, ..)| *upstream == address(0)).unwrap().clone();
    let mut looped = query("x", 5);
    looped.question = check.question;
    lab.ask(1, looped.clone());
    assert_eq!((lab.looping.as_slice(), lab.codes()[0].1), (&[address(0)][..], rcode::REFUSED));
    lab.ask(2, query("x.test", 1));
    assert_eq!(lab.only().1, address(1));
    // Somebody else's name of the kind means nothing.
    looped.question.name = "0123456789abcdef.0123456789abcdef".parse().unwrap();
    lab.ask(3, looped);
    assert_eq!(lab.looping.len(), 1);
}

#[test]
fn denials_and_failures_are_kept_as_long_as_they_may() {
    let mut lab = lab(1, |_| {});
    let mut hits = |name: &str, rcode: u16, records: &[(Section, Record)], secs: u64| {
        lab.ask(1, query(name, 1));
        let (exchange, ..) = lab.only();
        lab.reply(exchange, rcode, records);
        let before = lab.replies.len();
        lab.pass(Duration::from_secs(secs));
        lab.ask(2, query(name, 2));
        let kept = lab.replies.len() > before;
        if !kept {
            let (exchange, ..) = lab.only();
            lab.reply(exchange, rcode::REFUSED, &[]);
        }
        kept
    };
    // The lesser of the record's TTL and its minimum (RFC 2308), here 20.
    assert!(hits("a.test", rcode::NXDOMAIN, &[soa(60, 20)], 19));
    assert!(!hits("b.test", rcode::NXDOMAIN, &[soa(20, 60)], 20));
    // There is such a name, but nothing of the type.
    assert!(hits("c.test", 0, &[soa(60, 60)], 59));
    // Without an SOA record nothing is known.
    assert!(!hits("d.test", rcode::NXDOMAIN, &[], 0));
    assert!(hits("e.test", rcode::SERVFAIL, &[], 4));
    assert!(!hits("f.test", rcode::SERVFAIL, &[], 5));
    assert!(!hits("g.test", rcode::REFUSED, &[], 0));
    // Never less than five seconds, never more than an hour.
    assert!(hits("h.test", 0, &[a("h.test", 0)], 4));
    assert!(!hits("i.test", 0, &[a("i.test", 86_400)], 3600));
    assert!(hits("j.test", 0, &[a("j.test", 86_400)], 3599));
}

#[test]
fn what_was_true_is_told_when_no_server_answers() {
    let mut lab = lab(1, |_| {});
    lab.ask(1, query("x.test", 1));
    let (exchange, ..) = lab.only();
    lab.reply(exchange, 0, &[a("x.test", 60)]);
    lab.pass(Duration::from_secs(61));
    lab.ask(2, query("x.test", 2));
    lab.pass(Duration::from_secs(5));
    let (_, message, _) = &lab.replies[1];
    assert_eq!(
        (message.header.rcode, message.records[0].1.ttl_secs, &message.extended_errors[..]),
        (0, 30, &[3][..])
    );
    // An hour after its end it is forgotten.
    lab.pass(Duration::from_secs(3600));
    lab.ask(3, query("x.test", 3));
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.codes()[2], (3, rcode::SERVFAIL, Vec::from([22])));
}

#[test]
fn an_alias_of_the_cluster_leads_to_the_answer() {
    let mut lab = lab(1, |_| {});
    let mut aliased = query("external.n.svc.cluster.local", 9);
    aliased.aliases = Vec::from(["next.n.svc.cluster.local".parse().unwrap(), "Ext.test".parse().unwrap()]);
    lab.ask(1, aliased);
    let (exchange, ..) = lab.only();
    assert_eq!(alloc::format!("{}", lab.exchanges[&exchange].2.question.name), "ext.test.");
    lab.reply(exchange, 0, &[a("ext.test", 60)]);
    let shown = crate::dns::tests::fixture::show(&lab.replies[0].1);
    let expected = "NOERROR\nan external.n.svc.cluster.local. 5 CNAME next.n.svc.cluster.local.\n\
        an next.n.svc.cluster.local. 5 CNAME Ext.test.\nan Ext.test. 60 A 1.2.3.4\n";
    assert_eq!(shown, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever servers do, each client gets exactly one answer, in bounded time, and nothing is left under way.
    #[test]
    fn every_client_is_answered_once(
        servers in 0..4_u8,
        steps in proptest::collection::vec((0..6_u8, 0..4_u8, 0..3000_u64), 1..60),
        policy in prop_oneof![Just(Policy::Random), Just(Policy::RoundRobin), Just(Policy::Sequential)],
    ) {
        let mut lab = lab(servers, |c| c.policy = policy);
        let mut asked = 0;
        for (what, which, millis) in steps {
            let exchange = lab.exchanges.keys().nth(usize::from(which)).copied();
            match (what, exchange) {
                (0 | 1, _) => {
                    asked += 1;
                    lab.ask(asked, query(&alloc::format!("n{which}.test"), 1));
                }
                (2, Some(exchange)) => lab.tell(ForwardEvent::Failed { exchange }),
                (3, Some(exchange)) => lab.reply(exchange, 0, &[a("x.test", 7)]),
                (4, Some(exchange)) => {
                    let mut cut = lab.answer_to(exchange, 0, &[]);
                    cut.header.flags |= Header::TRUNCATED;
                    lab.send(exchange, &cut);
                }
                _ => lab.pass(Duration::from_millis(millis)),
            }
            prop_assert!(lab.exchanges.len() == lab.machine.in_flight());
        }
        lab.pass(Duration::from_secs(6));
        let mut answered: Vec<u32> = lab.replies.iter().map(|(client, ..)| *client).collect();
        answered.sort_unstable();
        prop_assert_eq!(answered, (1..=asked).collect::<Vec<_>>());
        // At most a probe for each server goes on.
        prop_assert!(lab.machine.in_flight() <= usize::from(servers));
    }
}
