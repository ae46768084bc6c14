//! The world.

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use super::{Counts, Disk, HostClock, Links, Trace};
use crate::base::{Duration, Machine, Rng, Time, TimingWheel};

/// Names a host of a world: the first is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// Names a stream; chosen by the host that opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

impl StreamId {
    /// The stream number `n` of one life of a host. A host opens its streams in the order of `n`, from 1.
    #[must_use]
    pub const fn new(host: HostId, life: u32, n: u64) -> Self {
        Self(((host.0 as u64) << 52) | (((life & 0xffff) as u64) << 36) | (n & 0xf_ffff_ffff))
    }

    /// Who opened it.
    #[must_use]
    pub const fn opener(self) -> HostId {
        HostId((self.0 >> 52) as u32)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0 >> 52, (self.0 >> 36) & 0xffff, self.0 & 0xf_ffff_ffff)
    }
}

/// What happens to a host.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<P> {
    /// A datagram came in: perhaps late, twice, or out of order.
    Packet {
        /// Who sent it.
        from: HostId,
        /// What it holds.
        payload: P,
    },
    /// Something came in over a stream: once, and in the order in which it was sent.
    Stream {
        /// The stream; new if it was opened by this.
        stream: StreamId,
        /// Who sent it.
        from: HostId,
        /// What it holds.
        payload: P,
        /// Nothing comes after it; the stream is no more.
        end: bool,
    },
    /// A stream is no more, though no end of it was sent: its other side closed it, died, or cannot be reached. What was sent
    /// over it may have arrived or not.
    Closed {
        /// The stream.
        stream: StreamId,
    },
}

/// What a host wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output<P> {
    /// Send a datagram.
    Packet {
        /// To whom.
        to: HostId,
        /// What it holds.
        payload: P,
    },
    /// Send something over a stream, which is opened if it is new.
    Stream {
        /// The stream.
        stream: StreamId,
        /// To whom.
        to: HostId,
        /// What it holds.
        payload: P,
        /// Nothing comes after it; the stream is no more.
        end: bool,
    },
    /// Close a stream.
    Close {
        /// The stream.
        stream: StreamId,
    },
    /// A line for the trace.
    Note(String),
}

/// How a host dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its processes are killed: the disk keeps what was written, and the other ends of its streams are told.
    Process,
    /// It loses power: the disk loses what was not synced, and nobody is told.
    Power,
}

/// Machines do not come to rest: one was woken too often at one instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host} was woken {wakes} times at one instant: its deadline does not move")]
pub struct Stuck {
    /// The host.
    pub host: String,
    /// How often it was woken.
    pub wakes: u32,
}

/// Most wakes of one host at one instant.
const WAKES_MAX: u32 = 10_000;
/// How much later something comes that had to be sent again (the least retransmission time-out of Linux).
const RETRANSMIT: Duration = Duration::from_millis(200);

struct Slot<M, D> {
    name: String,
    machine: Option<M>,
    disk: D,
    /// Counts the lives: what belongs to an earlier one does not reach a later one.
    life: u32,
    clock: HostClock,
    paused_until: Option<Time>,
    opened: u64,
    wakes: (Time, u32),
}

struct Entry<P> {
    at: Time,
    seq: u64,
    to: HostId,
    input: Input<P>,
    /// Of a [`Input::Closed`], the life that it is for.
    life: u32,
}

impl<P> PartialEq for Entry<P> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl<P> Eq for Entry<P> {}
impl<P> PartialOrd for Entry<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<P> Ord for Entry<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest: the earliest is to be it.
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

struct Stream {
    ends: [HostId; 2],
    lives: [u32; 2],
    /// When the last thing of each direction arrives, by the place of its receiver.
    due: [Time; 2],
}

impl Stream {
    fn place(&self, host: HostId) -> usize {
        // A stream of a host to itself has both directions in one place, which keeps their order too.
        usize::from(self.ends[0] != host)
    }

    fn other(&self, host: HostId) -> (HostId, u32) {
        let ([a, b], [of_a, of_b]) = (self.ends, self.lives);
        if a == host { (b, of_b) } else { (a, of_a) }
    }
}

/// Hosts, links, disks and the events to come; see the [module](super).
pub struct World<M, D, P> {
    start: Time,
    now: Time,
    seq: u64,
    heap: BinaryHeap<Entry<P>>,
    timers: TimingWheel<HostId>,
    hosts: Vec<Slot<M, D>>,
    streams: BTreeMap<StreamId, Stream>,
    /// When the last packet of each ordered pair of hosts arrives.
    packets_due: BTreeMap<(HostId, HostId), Time>,
    /// What the links between hosts do.
    pub links: Links,
    /// After how long one end of a stream learns that the other cannot be reached: at least and at most.
    pub detect: (Duration, Duration),
    rng: Rng,
    faults: Counts,
    trace: Trace,
    out: Vec<Output<P>>,
}

impl<M, D, P> fmt::Debug for World<M, D, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .field("hosts", &self.hosts.len())
            .field("events", &self.heap.len())
            .finish_non_exhaustive()
    }
}

impl<M, D, P> World<M, D, P>
where
    M: Machine<Event = Input<P>, Effect = Output<P>>,
    D: Disk,
    P: Clone + fmt::Display,
{
    /// A world without hosts, at the time `start`.
    #[must_use]
    pub fn new(seed: u64, start: Time) -> Self {
        Self {
            start,
            now: start,
            seq: 0,
            heap: BinaryHeap::new(),
            timers: TimingWheel::new(),
            hosts: Vec::new(),
            streams: BTreeMap::new(),
            packets_due: BTreeMap::new(),
            links: Links::default(),
            detect: (Duration::from_secs(2), Duration::from_secs(15)),
            rng: Rng::new(seed).child("world"),
            faults: Counts::default(),
            trace: Trace::new(true),
            out: Vec::new(),
        }
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// What happened.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What went wrong by the world's doing, by kind.
    #[must_use]
    pub const fn faults(&self) -> &Counts {
        &self.faults
    }

    /// Events that are yet to come.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.heap.len()
    }

    /// Writes a line to the trace.
    pub fn note(&mut self, who: &str, what: fmt::Arguments<'_>) {
        let at = self.elapsed();
        self.trace.line(at, who, what);
    }

    fn elapsed(&self) -> Time {
        Time::ZERO + self.now.since(self.start)
    }

    /// Adds a host that is off.
    pub fn add(&mut self, name: &str, disk: D) -> HostId {
        let id = HostId(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX));
        self.hosts.push(Slot {
            name: name.to_string(),
            machine: None,
            disk,
            life: 0,
            clock: HostClock { start: self.start, ..HostClock::default() },
            paused_until: None,
            opened: 0,
            wakes: (self.start, 0),
        });
        id
    }

    /// All hosts.
    pub fn ids(&self) -> impl Iterator<Item = HostId> + use<M, D, P> {
        (0..u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)).map(HostId)
    }

    fn slot(&self, host: HostId) -> Option<&Slot<M, D>> {
        self.hosts.get(host.0 as usize)
    }

    fn slot_mut(&mut self, host: HostId) -> Option<&mut Slot<M, D>> {
        self.hosts.get_mut(host.0 as usize)
    }

    /// The name of a host.
    #[must_use]
    pub fn name(&self, host: HostId) -> &str {
        self.slot(host).map_or("?", |s| &s.name)
    }

    /// The machine of a host, if it is on.
    #[must_use]
    pub fn host(&self, host: HostId) -> Option<&M> {
        self.slot(host)?.machine.as_ref()
    }

    /// The machine of a host, to take from it what is not the world's business; its deadline is not looked at anew.
    pub fn host_mut(&mut self, host: HostId) -> Option<&mut M> {
        self.slot_mut(host)?.machine.as_mut()
    }

    /// Whether a host is on.
    #[must_use]
    pub fn is_up(&self, host: HostId) -> bool {
        self.host(host).is_some()
    }

    /// How often a host was started; part of the names of its streams.
    #[must_use]
    pub fn life(&self, host: HostId) -> u32 {
        self.slot(host).map_or(0, |s| s.life)
    }

    /// The life that the next start begins.
    #[must_use]
    pub fn next_life(&self, host: HostId) -> u32 {
        self.life(host).wrapping_add(1)
    }

    /// The disk of a host.
    #[must_use]
    pub fn disk(&self, host: HostId) -> Option<&D> {
        self.slot(host).map(|s| &s.disk)
    }

    /// Exchanges the disk of a host.
    pub fn set_disk(&mut self, host: HostId, disk: D) {
        if let Some(slot) = self.slot_mut(host) {
            slot.disk = disk;
        }
    }

    /// What the clock of a host shows.
    #[must_use]
    pub fn local(&self, host: HostId) -> Time {
        self.slot(host).map_or(self.now, |s| s.clock.local(self.now))
    }

    /// Sets the clock of a host; to be done while it is off, since clocks do not run backwards.
    pub fn set_clock(&mut self, host: HostId, offset_micros: i64, drift_ppm: i32) {
        let start = self.start;
        if let Some(slot) = self.slot_mut(host) {
            slot.clock = HostClock { start, offset_micros, drift_ppm };
        }
    }

    /// Switches a host on with a machine made from what its disk holds. One that is on dies first.
    pub fn start(&mut self, host: HostId, machine: M) {
        if self.is_up(host) {
            self.kill(host, Death::Process);
        }
        let Some(slot) = self.slot_mut(host) else { return };
        slot.life = slot.life.wrapping_add(1);
        slot.opened = 0;
        slot.paused_until = None;
        slot.machine = Some(machine);
        let life = slot.life;
        self.note_host(host, format_args!("starts, life {life}"));
        self.settle(host);
    }

    fn note_host(&mut self, host: HostId, what: fmt::Arguments<'_>) {
        let at = self.elapsed();
        if let Some(slot) = self.hosts.get(host.0 as usize) {
            self.trace.line(at, &slot.name, what);
        }
    }

    /// Ends a host. Its machine is dropped with everything that it was doing.
    pub fn kill(&mut self, host: HostId, death: Death) {
        let Some(slot) = self.slot_mut(host) else { return };
        if slot.machine.take().is_none() {
            return;
        }
        slot.paused_until = None;
        if death == Death::Power {
            slot.disk = slot.disk.power_loss();
        }
        self.timers.cancel(&host);
        self.note_host(host, format_args!("dies: {death:?}"));
        let open: Vec<StreamId> =
            self.streams.iter().filter(|(_, s)| s.ends.contains(&host)).map(|(id, _)| *id).collect();
        for id in open {
            self.break_stream(id, host, death == Death::Process);
        }
    }

    /// Holds a host still until `until`: what arrives and what is due waits.
    pub fn pause(&mut self, host: HostId, until: Time) {
        if let Some(slot) = self.slot_mut(host).filter(|s| s.machine.is_some()) {
            slot.paused_until = Some(until);
            self.note_host(host, format_args!("is held still until {}", until.as_micros()));
        }
    }

    /// Does something to the machine of a host that is on, and performs what it wants done.
    pub fn with<R>(
        &mut self,
        host: HostId,
        f: impl FnOnce(&mut M, Time, &mut Vec<Output<P>>) -> R,
    ) -> Option<R> {
        let now = self.now;
        let mut out = core::mem::take(&mut self.out);
        let result = self.slot_mut(host).and_then(|slot| {
            let local = slot.clock.local(now);
            slot.machine.as_mut().map(|machine| f(machine, local, &mut out))
        });
        self.perform(host, &mut out);
        self.out = out;
        self.settle(host);
        result
    }

    /// Does the next thing that is due at or before `until`, and says to whom it happened; when nothing is due, the
    /// time becomes `until`.
    ///
    /// # Errors
    /// [`Stuck`] if a machine asks again and again to be woken at once.
    pub fn step(&mut self, until: Time) -> Result<Option<HostId>, Stuck> {
        let arrival = self.heap.peek().map(|e| e.at);
        let timer = self.timers.deadline();
        let arrives = match (arrival, timer) {
            (Some(a), Some(t)) => a <= t,
            (a, _) => a.is_some(),
        };
        let Some(at) = (if arrives { arrival } else { timer }).filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return Ok(None);
        };
        self.now = self.now.max(at);
        if arrives {
            let Some(entry) = self.heap.pop() else { return Ok(None) };
            let to = entry.to;
            self.arrive(entry);
            return Ok(Some(to));
        }
        let Some(host) = self.timers.pop(self.now) else { return Ok(None) };
        self.wake(host)?;
        Ok(Some(host))
    }

    fn wake(&mut self, host: HostId) -> Result<(), Stuck> {
        let now = self.now;
        let Some(slot) = self.slot_mut(host) else { return Ok(()) };
        if let Some(until) = slot.paused_until.take_if(|until| *until > now) {
            slot.paused_until = Some(until);
            self.timers.set(host, until);
            return Ok(());
        }
        slot.paused_until = None;
        if slot.wakes.0 != now {
            slot.wakes = (now, 0);
        }
        slot.wakes.1 += 1;
        if slot.wakes.1 > WAKES_MAX {
            return Err(Stuck { host: slot.name.clone(), wakes: slot.wakes.1 });
        }
        self.note_host(host, format_args!("wakes"));
        self.with(host, |machine, local, out| machine.wake(local, out));
        Ok(())
    }

    fn arrive(&mut self, mut entry: Entry<P>) {
        let (host, now) = (entry.to, self.now);
        let Some(slot) = self.slot_mut(host) else { return };
        if let Some(until) = slot.paused_until.filter(|until| *until > now) {
            entry.at = until;
            // The number stays: what waits keeps its order.
            self.heap.push(entry);
            return;
        }
        let (life, up) = (slot.life, slot.machine.is_some());
        match &entry.input {
            Input::Packet { from, payload } => {
                if !up {
                    return;
                }
                let from = self.name(*from).to_string();
                self.note_host(host, format_args!("< {from} {payload}"));
            }
            Input::Stream { stream, from, payload, end } => {
                let (stream, from, end) = (*stream, *from, *end);
                let Some(known) = self.streams.get(&stream) else { return };
                let lives = known.lives.get(known.place(host)).copied();
                if !up || lives != Some(life) {
                    // A host that is off says nothing; one that has started again knows no such stream and says so.
                    self.break_stream(stream, host, up);
                    return;
                }
                let name = self.name(from).to_string();
                self.note_host(
                    host,
                    format_args!("< {name} {stream} {payload}{}", if end { " end" } else { "" }),
                );
                if end {
                    self.streams.remove(&stream);
                }
            }
            Input::Closed { stream } => {
                if !up || entry.life != life {
                    return;
                }
                let stream = *stream;
                self.note_host(host, format_args!("< closed {stream}"));
            }
        }
        self.with(host, |machine, local, out| machine.on(local, entry.input, out));
    }

    fn settle(&mut self, host: HostId) {
        let now = self.now;
        let due = self.slot(host).and_then(|slot| Some(slot.clock.world(slot.machine.as_ref()?.deadline()?)));
        match due {
            Some(due) => self.timers.set(host, due.max(now)),
            None => {
                self.timers.cancel(&host);
            }
        }
    }

    fn push(&mut self, at: Time, to: HostId, input: Input<P>, life: u32) {
        self.seq += 1;
        self.heap.push(Entry { at, seq: self.seq, to, input, life });
    }

    fn perform(&mut self, host: HostId, out: &mut Vec<Output<P>>) {
        for output in out.drain(..) {
            match output {
                Output::Packet { to, payload } => self.send_packet(host, to, payload),
                Output::Stream { stream, to, payload, end } => {
                    self.send_stream(host, stream, to, payload, end)
                }
                Output::Close { stream } => {
                    if let Some(known) = self.streams.remove(&stream) {
                        let (to, life) = known.other(host);
                        if !self.links.is_cut(host, to) {
                            let (latency, _) = self.links.model(host, to).latency(&mut self.rng);
                            self.push(self.now + latency, to, Input::Closed { stream }, life);
                        } else {
                            let after = self.detect_after();
                            self.push(self.now + after, to, Input::Closed { stream }, life);
                        }
                    }
                }
                Output::Note(text) => self.note_host(host, format_args!("- {text}")),
            }
        }
    }

    fn send_packet(&mut self, from: HostId, to: HostId, payload: P) {
        if self.links.is_cut(from, to) {
            self.faults.add("packet cut off");
            return;
        }
        let model = self.links.model(from, to);
        if from != to && model.loss_per_million > 0 && self.rng.chance(model.loss_per_million) {
            self.faults.add("packet lost");
            return;
        }
        let (latency, spike) = model.latency(&mut self.rng);
        if spike {
            self.faults.add("delay");
        }
        let mut at = self.now + latency;
        let last = self.packets_due.entry((from, to)).or_insert(at);
        if model.reorder_per_million > 0 && self.rng.chance(model.reorder_per_million) {
            // Later ones do not wait for it.
            at = at + latency + latency;
            self.faults.add("packet overtaken");
        } else {
            at = at.max(*last);
            *last = at;
        }
        if model.duplicate_per_million > 0 && self.rng.chance(model.duplicate_per_million) {
            self.faults.add("packet doubled");
            self.push(at + latency, to, Input::Packet { from, payload: payload.clone() }, 0);
        }
        self.push(at, to, Input::Packet { from, payload }, 0);
    }

    fn send_stream(&mut self, from: HostId, stream: StreamId, to: HostId, payload: P, end: bool) {
        let (now, to_life) = (self.now, self.life(to));
        if !self.streams.contains_key(&stream) {
            let Some(slot) = self.slot_mut(from) else { return };
            // A stream that was once open is not opened again: it has ended or is broken.
            if stream.opener() != from || stream.0 <= slot.opened {
                return;
            }
            slot.opened = stream.0;
            let lives = [slot.life, to_life];
            self.streams.insert(stream, Stream { ends: [from, to], lives, due: [now, now] });
        }
        if self.links.is_cut(from, to) {
            self.faults.add("stream cut off");
            self.break_stream(stream, to, false);
            return;
        }
        let model = self.links.model(from, to);
        let (mut latency, spike) = model.latency(&mut self.rng);
        if spike {
            self.faults.add("delay");
        }
        if from != to && model.loss_per_million > 0 && self.rng.chance(model.loss_per_million) {
            self.faults.add("segment lost");
            latency += RETRANSMIT;
        }
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let place = known.place(to);
        let Some(due) = known.due.get_mut(place) else { return };
        *due = (*due).max(now + latency);
        let at = *due;
        self.push(at, to, Input::Stream { stream, from, payload, end }, 0);
    }

    fn detect_after(&mut self) -> Duration {
        let (min, max) = self.detect;
        let spread = u64::try_from(max.saturating_sub(min).as_micros()).unwrap_or(u64::MAX);
        min + Duration::from_micros(self.rng.below(spread.saturating_add(1)))
    }

    /// A stream breaks because of `culprit`. The other end is told at once if the culprit can still speak, else after it
    /// has waited in vain; so is the culprit.
    fn break_stream(&mut self, stream: StreamId, culprit: HostId, told: bool) {
        let Some(known) = self.streams.remove(&stream) else { return };
        for (host, life) in known.ends.into_iter().zip(known.lives) {
            let told = told && host != culprit && !self.links.is_cut(culprit, host);
            let after = if told {
                self.links.model(culprit, host).latency(&mut self.rng).0
            } else {
                self.detect_after()
            };
            self.push(self.now + after, host, Input::Closed { stream }, life);
        }
    }
}
