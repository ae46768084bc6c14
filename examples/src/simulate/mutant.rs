//! Rules broken on purpose, in the shells around the machines: each shows that its checker can fire.

use super::scheduling;

/// A broken shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Mutant {
    /// The store's shell moves bound pods to another node.
    Rebind,
    /// The scheduler is told that one node is a thousand times larger than it is, and that the others are full.
    Overcommit,
    /// The scheduler is told that every disruption budget allows a hundred evictions.
    BlindBudgets,
    /// The scheduler is not told of one new pod in eight.
    LosePod,
    /// The scheduler is not told that pods are going, or gone.
    Hoard,
    /// The scheduler is told that one pod of a gang is enough.
    SplitGang,
    /// A client loses one watch event in fifty.
    DropEvent,
    /// A client gets one watch event in fifty twice.
    RepeatEvent,
    /// Bookmarks promise more than was delivered.
    BookmarkAhead,
    /// The store acknowledges before it syncs.
    EarlyAck,
    /// The store restarts from the disk that it had at its start before.
    OldDisk,
    /// The store forgets to log one entry in a hundred.
    LoseEntry,
    /// The store answers reads from the past.
    StaleRead,
    /// API servers take every PUT of a deployment, whatever version it was made from.
    BlindWrite,
    /// Nodes give pods addresses of one range.
    SamePodRange,
    /// The clock of one master runs at a third of its speed.
    SlowClock,
    /// Creations of the controller manager are held for half a minute before they are sent.
    LateWrites,
    /// All pods get one uid.
    SameUid,
    /// Objects with finalizers are removed at once.
    Unfinalize,
    /// A deletion that was asked for is forgotten.
    Undelete,
    /// All services get one address.
    SameClusterIp,
    /// The state of the namespace is not looked at when something is created in it.
    DyingNamespace,
    /// The selector of a ReplicaSet changes.
    FlipSelector,
    /// Status writes count as changes of the wanted state.
    Generation,
    /// Node agents never learn that a pod is gone.
    Zombie,
    /// A master keeps the shared address when it is to release it.
    TwoOwners,
    /// The scheduler's bindings are not sent.
    NoBinding,
    /// Deletions by the garbage collector are not sent.
    NoCollection,
    /// Something writes to a deployment every second.
    Busy,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::Rebind,
        Self::Overcommit,
        Self::BlindBudgets,
        Self::LosePod,
        Self::Hoard,
        Self::SplitGang,
        Self::DropEvent,
        Self::RepeatEvent,
        Self::BookmarkAhead,
        Self::EarlyAck,
        Self::OldDisk,
        Self::LoseEntry,
        Self::StaleRead,
        Self::BlindWrite,
        Self::SamePodRange,
        Self::SlowClock,
        Self::LateWrites,
        Self::SameUid,
        Self::Unfinalize,
        Self::Undelete,
        Self::SameClusterIp,
        Self::DyingNamespace,
        Self::FlipSelector,
        Self::Generation,
        Self::Zombie,
        Self::TwoOwners,
        Self::NoBinding,
        Self::NoCollection,
        Self::Busy,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rebind => "rebind",
            Self::Overcommit => "overcommit",
            Self::BlindBudgets => "blind-budgets",
            Self::LosePod => "lose-pod",
            Self::Hoard => "hoard",
            Self::SplitGang => "split-gang",
            Self::DropEvent => "drop-event",
            Self::RepeatEvent => "repeat-event",
            Self::BookmarkAhead => "bookmark-ahead",
            Self::EarlyAck => "early-ack",
            Self::OldDisk => "old-disk",
            Self::LoseEntry => "lose-entry",
            Self::StaleRead => "stale-read",
            Self::BlindWrite => "blind-write",
            Self::SamePodRange => "same-pod-range",
            Self::SlowClock => "slow-clock",
            Self::LateWrites => "late-writes",
            Self::SameUid => "same-uid",
            Self::Unfinalize => "unfinalize",
            Self::Undelete => "undelete",
            Self::SameClusterIp => "same-cluster-ip",
            Self::DyingNamespace => "dying-namespace",
            Self::FlipSelector => "flip-selector",
            Self::Generation => "generation",
            Self::Zombie => "zombie",
            Self::TwoOwners => "two-owners",
            Self::NoBinding => "no-binding",
            Self::NoCollection => "no-collection",
            Self::Busy => "busy",
        }
    }

    /// The checks of which one must fire.
    #[must_use]
    pub const fn caught_by(self) -> &'static [&'static str] {
        match self {
            Self::Rebind => &["pod bound once"],
            Self::Overcommit => &["node not overcommitted"],
            Self::BlindBudgets => &[scheduling::BUDGETS],
            Self::LosePod => &[scheduling::LOST],
            Self::Hoard => &[scheduling::STARVED],
            Self::SplitGang => &[scheduling::SPLIT],
            Self::DropEvent => &["watch complete"],
            Self::RepeatEvent => &["watch in order"],
            Self::BookmarkAhead => &["bookmark true"],
            Self::EarlyAck | Self::OldDisk => &["acknowledged write survives"],
            Self::LoseEntry => &["store opens again", "acknowledged write survives"],
            Self::StaleRead => &["read is fresh"],
            Self::BlindWrite => &["stale write refused"],
            Self::SamePodRange => &["address unique"],
            Self::SlowClock => &["one leader"],
            Self::LateWrites => &["terms in order"],
            Self::SameUid => &["uid unique"],
            Self::Unfinalize => &["finalizers kept"],
            Self::Undelete => &["deletion final"],
            Self::SameClusterIp => &["service address unique"],
            Self::DyingNamespace => &["dying namespace closed"],
            Self::FlipSelector => &["immutable field kept"],
            Self::Generation => &["generation counts"],
            Self::Zombie => &["no zombie", "converges"],
            Self::TwoOwners => &["one owner of the address"],
            Self::NoBinding => &["converges"],
            Self::NoCollection => &["no orphan", "converges"],
            Self::Busy => &["comes to rest"],
        }
    }

    /// The mutant of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }
}
