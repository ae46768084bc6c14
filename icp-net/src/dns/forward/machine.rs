//! Whom to ask, how long to wait, and what to answer.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use icp_core::base::{Entropy, Machine, Time};

use super::cache::{Answer, Cache, Key, Kind};
use super::reply::{Reply, UDP_BYTES, refuse};
use super::upstream::{Probing, Secrets, Upstreams};
use crate::dns::config::ForwardConfig;
use crate::dns::metrics::Metrics;
use crate::dns::wire::{
    CLASS_IN, Edns, ExtendedError, Header, MESSAGE_BYTES_MAX, Message, Name, Question, rcode, rtype,
};
use crate::dns::zone::{Forwarded, Note, Source, Transport};

/// Fewest attempts, so that a lost packet is sent again even to the only server.
const ATTEMPTS_MIN: u32 = 2;
/// The TTL of answers that are out of date, in seconds (RFC 8767 §4).
const STALE_TTL_SECS: u32 = 30;
/// The bits of a header that say what kind of message it is.
const OPCODE: u16 = 0x7800;

/// Names one exchange with an upstream server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

/// What happens to [`ForwardMachine`]. `C` is how the shell finds a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ForwardEvent<C> {
    /// A client asks.
    Query {
        /// Who.
        client: C,
        /// What.
        query: Forwarded,
    },
    /// A packet came in an exchange.
    Packet {
        /// Which.
        exchange: ExchangeId,
        /// The packet, without the length of TCP.
        packet: Vec<u8>,
    },
    /// An exchange cannot go on: refused, unreachable, closed.
    Failed {
        /// Which.
        exchange: ExchangeId,
    },
}

/// What [`ForwardMachine`] wants done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ForwardEffect<C> {
    /// Send a packet from a port that nobody can guess, and report each packet that comes back.
    Exchange {
        /// Names the exchange.
        exchange: ExchangeId,
        /// To whom.
        upstream: SocketAddr,
        /// By which transport.
        transport: Transport,
        /// The packet, without the length of TCP.
        packet: Vec<u8>,
    },
    /// Nothing more is wanted of an exchange.
    Abandon {
        /// Which.
        exchange: ExchangeId,
    },
    /// Answer a client.
    Respond {
        /// Whom.
        client: C,
        /// The packet, without the length of TCP.
        packet: Vec<u8>,
        /// What is counted.
        note: Note,
    },
    /// An upstream server sends queries back to this one; it is asked no more.
    Looping {
        /// Which.
        upstream: SocketAddr,
    },
}

/// Why something is asked.
#[derive(Debug)]
enum Purpose<C> {
    /// Clients wait for it.
    Clients(Key, Vec<(C, Forwarded)>),
    /// To see whether the server works again.
    Probe,
    /// To see whether the server sends queries back here.
    LoopCheck,
}

/// A question that is under way.
#[derive(Debug)]
struct Flight<C> {
    purpose: Purpose<C>,
    question: Question,
    /// RD and CD.
    flags: u16,
    dnssec_ok: bool,
    upstream: usize,
    transport: Transport,
    id: u16,
    /// Servers that were asked, as bits.
    tried: u16,
    attempts: u32,
    /// When the attempt, and the whole, is over.
    due: Time,
    end: Time,
}

/// Forwarding as a machine.
///
/// Equal questions of several clients are asked once. A server has [`ForwardConfig::attempt`] to answer; then the next
/// is asked, until all were or [`ForwardConfig::total`] is over. A truncated answer is asked for again over TCP. A server
/// that fails is probed until it answers, and after [`ForwardConfig::fails_max`] failed probes asked only if no other
/// works. An answer must come in its exchange and repeat id and question.
#[derive(Debug)]
pub struct ForwardMachine<C> {
    config: ForwardConfig,
    secrets: Secrets,
    upstreams: Upstreams,
    cache: Cache,
    flights: BTreeMap<ExchangeId, Flight<C>>,
    by_key: HashMap<Key, ExchangeId, FixedState>,
    deadlines: BTreeSet<(Time, ExchangeId)>,
    exchanges: u64,
    /// Clients that wait.
    clients: usize,
    started: bool,
    metrics: Arc<Metrics>,
}

impl<C> ForwardMachine<C> {
    /// A machine that asks nobody yet; the first [`Machine::wake`] starts it. Ids of queries come from `entropy`.
    #[must_use]
    pub fn new(config: ForwardConfig, entropy: Box<dyn Entropy>, metrics: Arc<Metrics>) -> Self {
        let mut secrets = Secrets(entropy);
        Self {
            upstreams: Upstreams::new(&config, &mut secrets),
            cache: Cache::new(config.cache.clone(), secrets.u64()),
            flights: BTreeMap::new(),
            by_key: HashMap::with_hasher(FixedState::with_seed(secrets.u64())),
            deadlines: BTreeSet::new(),
            exchanges: 0,
            clients: 0,
            started: false,
            secrets,
            config,
            metrics,
        }
    }

    /// The servers that send queries back to this one.
    pub fn looping(&self) -> impl Iterator<Item = SocketAddr> {
        self.upstreams.all.iter().filter(|u| u.looping).map(|u| u.address)
    }

    /// How many questions are under way, those to look after servers included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    fn on_query(&mut self, now: Time, client: C, query: Forwarded, out: &mut Vec<ForwardEffect<C>>) {
        if query.question.rtype == rtype::HINFO && self.is_own_token(&query.question.name, out) {
            return respond(client, refuse(&query, rcode::REFUSED, ExtendedError::NetworkError), out);
        }
        let name = query.aliases.last().unwrap_or(&query.question.name).to_lowercase();
        let key = Key {
            name,
            rtype: query.question.rtype,
            class: query.question.class,
            recursion_desired: query.flags & Header::RECURSION_DESIRED != 0,
            dnssec_ok: query.edns.is_some_and(|e| e.dnssec_ok),
            checking_disabled: query.flags & Header::CHECKING_DISABLED != 0,
        };
        if let Some((answer, age_secs, kind)) = self.cache.get(&key, now) {
            self.metrics.cache_hit(kind);
            let reply =
                Reply { answer: &answer, age_secs, ttl_secs: None, source: Source::Cache, error: None };
            return respond(client, reply.to(&query), out);
        }
        self.metrics.cache_miss();
        if !self.upstreams.usable() {
            let error = match self.upstreams.all.is_empty() {
                true => ExtendedError::NotAuthoritative,
                false => ExtendedError::NetworkError,
            };
            return self.fail_client(now, &key, (client, query), error, out);
        }
        let known = self.by_key.get(&key).copied();
        let full = self.clients >= self.config.clients_max
            || (known.is_none() && self.flights.len() >= self.config.in_flight_max);
        if full {
            self.metrics.forward_reject();
            return respond(client, refuse(&query, rcode::REFUSED, ExtendedError::Prohibited), out);
        }
        self.clients += 1;
        if let Some(flight) = known.and_then(|id| self.flights.get_mut(&id)) {
            if let Purpose::Clients(_, clients) = &mut flight.purpose {
                clients.push((client, query));
            }
            return;
        }
        let question = Question { name: key.name.clone(), rtype: key.rtype, class: key.class };
        let (flags, dnssec_ok) =
            (query.flags & (Header::RECURSION_DESIRED | Header::CHECKING_DISABLED), key.dnssec_ok);
        let purpose = Purpose::Clients(key, Vec::from([(client, query)]));
        let flight = self.flight(now, purpose, question, flags, dnssec_ok);
        self.ask_next(now, flight, out);
    }

    fn flight(
        &self,
        now: Time,
        purpose: Purpose<C>,
        question: Question,
        flags: u16,
        dnssec_ok: bool,
    ) -> Flight<C> {
        let end = now + self.config.total;
        Flight {
            purpose,
            question,
            flags,
            dnssec_ok,
            upstream: 0,
            transport: Transport::Udp,
            id: 0,
            tried: 0,
            attempts: 0,
            due: end,
            end,
        }
    }

    /// Asks the next server, or gives up.
    fn ask_next(&mut self, now: Time, mut flight: Flight<C>, out: &mut Vec<ForwardEffect<C>>) {
        let mut choice = None;
        if now < flight.end {
            choice = self.upstreams.choose(flight.tried, &mut self.secrets);
            if choice.is_none() && flight.attempts < ATTEMPTS_MIN {
                choice = self.upstreams.choose(0, &mut self.secrets);
            }
        }
        match choice {
            Some((upstream, guess)) => {
                if guess {
                    self.metrics.healthcheck_broken();
                }
                flight.upstream = upstream;
                flight.transport = Transport::Udp;
                self.ask(now, flight, out);
            }
            None => self.give_up(now, flight, out),
        }
    }

    /// Sends the flight's question to its server.
    fn ask(&mut self, now: Time, mut flight: Flight<C>, out: &mut Vec<ForwardEffect<C>>) {
        let Some(upstream) = self.upstreams.get(flight.upstream).map(|u| u.address) else { return };
        self.exchanges += 1;
        let exchange = ExchangeId(self.exchanges);
        flight.id = self.secrets.u16();
        flight.tried |= 1 << flight.upstream;
        flight.attempts += 1;
        flight.due = (now + self.config.attempt).min(flight.end);
        let message = Message {
            header: Header { id: flight.id, flags: flight.flags, rcode: 0 },
            question: flight.question.clone(),
            records: Vec::new(),
            edns: Some(Edns { udp_bytes: UDP_BYTES, version: 0, dnssec_ok: flight.dnssec_ok }),
            extended_errors: Vec::new(),
        };
        let mut packet = Vec::new();
        message.encode(MESSAGE_BYTES_MAX, None, &mut packet);
        self.metrics.forward_request(flight.transport);
        out.push(ForwardEffect::Exchange { exchange, upstream, transport: flight.transport, packet });
        if let Purpose::Clients(key, _) = &flight.purpose {
            self.by_key.insert(key.clone(), exchange);
        }
        self.deadlines.insert((flight.due, exchange));
        self.flights.insert(exchange, flight);
    }

    /// Takes the flight of an exchange off the air.
    fn land(&mut self, exchange: ExchangeId) -> Option<Flight<C>> {
        let flight = self.flights.remove(&exchange)?;
        self.deadlines.remove(&(flight.due, exchange));
        if let Purpose::Clients(key, _) = &flight.purpose {
            self.by_key.remove(key);
        }
        Some(flight)
    }

    fn on_packet(&mut self, now: Time, exchange: ExchangeId, packet: &[u8], out: &mut Vec<ForwardEffect<C>>) {
        let Some(flight) = self.flights.get(&exchange) else { return };
        let answers = |message: &Message| {
            message.header.id == flight.id
                && message.header.flags & (Header::RESPONSE | OPCODE) == Header::RESPONSE
                && message.question.name.eq_ignore_case(&flight.question.name)
                && (message.question.rtype, message.question.class)
                    == (flight.question.rtype, flight.question.class)
        };
        let Some(message) = Message::decode(packet).ok().filter(answers) else {
            // Anybody can send a datagram: the answer may still come. In a stream nothing better does.
            if flight.transport == Transport::Tcp {
                self.on_failed(now, exchange, out);
            }
            return;
        };
        let Some(mut flight) = self.land(exchange) else { return };
        out.push(ForwardEffect::Abandon { exchange });
        if message.header.has(Header::TRUNCATED) && flight.transport == Transport::Udp {
            flight.transport = Transport::Tcp;
            return self.ask(now, flight, out);
        }
        if let Some(upstream) = self.upstreams.get(flight.upstream) {
            upstream.probe_fails = 0;
            if matches!(flight.purpose, Purpose::Probe) || matches!(upstream.probing, Probing::Due(_)) {
                upstream.probing = Probing::No;
            }
            if matches!(flight.purpose, Purpose::LoopCheck) {
                upstream.loop_checked = true;
            }
        }
        match flight.purpose {
            Purpose::Clients(key, clients) => self.deliver(now, &key, clients, message, out),
            Purpose::Probe => self.check_loop(now, flight.upstream, out),
            Purpose::LoopCheck => {}
        }
    }

    fn deliver(
        &mut self,
        now: Time,
        key: &Key,
        clients: Vec<(C, Forwarded)>,
        message: Message,
        out: &mut Vec<ForwardEffect<C>>,
    ) {
        let ttl_secs_max = self.config.cache.success_ttl_secs.0.max(1);
        let truncated = message.header.has(Header::TRUNCATED);
        let answer = Arc::new(Answer::of(message, ttl_secs_max));
        // Without recursion, a server tells what it happens to have.
        if key.recursion_desired && !truncated {
            self.cache.put(key, &answer, now);
            self.metrics.cache_size(
                [self.cache.entries(Kind::Success), self.cache.entries(Kind::Denial)],
                self.cache.evictions,
            );
        }
        self.clients -= clients.len();
        for (client, query) in clients {
            let source = Source::Forward;
            let reply = Reply { answer: &answer, age_secs: 0, ttl_secs: None, source, error: None };
            respond(client, reply.to(&query), out);
        }
    }

    fn on_failed(&mut self, now: Time, exchange: ExchangeId, out: &mut Vec<ForwardEffect<C>>) {
        let Some(flight) = self.land(exchange) else { return };
        out.push(ForwardEffect::Abandon { exchange });
        let (probe_due, looks_after) = (now + self.config.probe_interval, self.config.fails_max > 0);
        if let Some(upstream) = self.upstreams.get(flight.upstream).filter(|_| looks_after) {
            match (&flight.purpose, upstream.probing) {
                (Purpose::Probe, _) => {
                    upstream.probe_fails = upstream.probe_fails.saturating_add(1);
                    upstream.probing = Probing::Due(probe_due);
                    self.metrics.healthcheck_failure();
                }
                (_, Probing::No) => upstream.probing = Probing::Due(now),
                _ => {}
            }
        }
        match flight.purpose {
            Purpose::Clients(..) => self.ask_next(now, flight, out),
            Purpose::Probe | Purpose::LoopCheck => {}
        }
        self.probe(now, out);
    }

    fn give_up(&mut self, now: Time, flight: Flight<C>, out: &mut Vec<ForwardEffect<C>>) {
        let Purpose::Clients(key, clients) = flight.purpose else { return };
        self.clients -= clients.len();
        for client in clients {
            self.fail_client(now, &key, client, ExtendedError::NoReachableAuthority, out);
        }
    }

    /// Answers by what was true before, or by SERVFAIL.
    fn fail_client(
        &mut self,
        now: Time,
        key: &Key,
        (client, query): (C, Forwarded),
        error: ExtendedError,
        out: &mut Vec<ForwardEffect<C>>,
    ) {
        let reply = match self.cache.stale(key, now) {
            Some(answer) => {
                self.metrics.served_stale();
                let error = Some(ExtendedError::StaleAnswer);
                let (age_secs, ttl_secs) = (0, Some(STALE_TTL_SECS));
                Reply { answer: &answer, age_secs, ttl_secs, source: Source::Cache, error }.to(&query)
            }
            None => refuse(&query, rcode::SERVFAIL, error),
        };
        respond(client, reply, out);
    }

    /// Whether the name is the secret one of a server, which then sends queries back here.
    fn is_own_token(&mut self, name: &Name, out: &mut Vec<ForwardEffect<C>>) -> bool {
        let Some(upstream) = self.upstreams.all.iter_mut().find(|u| u.token.eq_ignore_case(name)) else {
            return false;
        };
        if !upstream.looping {
            upstream.looping = true;
            out.push(ForwardEffect::Looping { upstream: upstream.address });
        }
        true
    }

    fn check_loop(&mut self, now: Time, index: usize, out: &mut Vec<ForwardEffect<C>>) {
        let Some(upstream) = self.upstreams.get(index).filter(|u| !u.loop_checked) else { return };
        let question = Question { name: upstream.token.clone(), rtype: rtype::HINFO, class: CLASS_IN };
        self.look_after(now, index, Purpose::LoopCheck, question, out);
    }

    /// Sends the probes that are due.
    fn probe(&mut self, now: Time, out: &mut Vec<ForwardEffect<C>>) {
        for index in 0..self.upstreams.all.len() {
            let Some(upstream) = self.upstreams.get(index) else { continue };
            if !upstream.looping && matches!(upstream.probing, Probing::Due(due) if due <= now) {
                upstream.probing = Probing::Running;
                // What CoreDNS asks (`plugin/pkg/proxy/health.go`).
                let question = Question { name: Name::root(), rtype: rtype::NS, class: CLASS_IN };
                self.look_after(now, index, Purpose::Probe, question, out);
            }
        }
    }

    fn look_after(
        &mut self,
        now: Time,
        index: usize,
        purpose: Purpose<C>,
        question: Question,
        out: &mut Vec<ForwardEffect<C>>,
    ) {
        let mut flight = self.flight(now, purpose, question, Header::RECURSION_DESIRED, false);
        flight.upstream = index;
        self.ask(now, flight, out);
    }
}

fn respond<C>(client: C, (packet, note): (Vec<u8>, Note), out: &mut Vec<ForwardEffect<C>>) {
    out.push(ForwardEffect::Respond { client, packet, note });
}

impl<C> Machine for ForwardMachine<C> {
    type Event = ForwardEvent<C>;
    type Effect = ForwardEffect<C>;

    fn on(&mut self, now: Time, event: ForwardEvent<C>, out: &mut Vec<ForwardEffect<C>>) {
        match event {
            ForwardEvent::Query { client, query } => self.on_query(now, client, query, out),
            ForwardEvent::Packet { exchange, packet } => self.on_packet(now, exchange, &packet, out),
            ForwardEvent::Failed { exchange } => self.on_failed(now, exchange, out),
        }
    }

    fn wake(&mut self, now: Time, out: &mut Vec<ForwardEffect<C>>) {
        if !self.started {
            self.started = true;
            (0..self.upstreams.all.len()).for_each(|index| self.check_loop(now, index, out));
        }
        while let Some((_, exchange)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now) {
            self.on_failed(now, exchange, out);
        }
        self.probe(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let probes = self.upstreams.all.iter().filter_map(|u| match u.probing {
            Probing::Due(due) if !u.looping => Some(due),
            _ => None,
        });
        probes.chain(self.deadlines.first().map(|(due, _)| *due)).min()
    }
}
