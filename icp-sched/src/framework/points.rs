//! Extension points, as configuration files name them.

/// Where a plugin has a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// Before a pod waits for a node.
    PreEnqueue,
    /// In which order pods are taken.
    QueueSort,
    /// A look at the pod, before nodes.
    PreFilter,
    /// Which nodes will do.
    Filter,
    /// What is done when none will.
    PostFilter,
    /// A look at the pod and the nodes that will do.
    PreScore,
    /// How good they are.
    Score,
    /// A pod has a node.
    Reserve,
    /// Whether it goes there now.
    Permit,
    /// What must be done before it is bound.
    PreBind,
    /// Binding it.
    Bind,
    /// It is bound.
    PostBind,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::PreEnqueue,
        Self::QueueSort,
        Self::PreFilter,
        Self::Filter,
        Self::PostFilter,
        Self::PreScore,
        Self::Score,
        Self::Reserve,
        Self::Permit,
        Self::PreBind,
        Self::Bind,
        Self::PostBind,
    ];

    /// The name of the field in a configuration file.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::PreEnqueue => "preEnqueue",
            Self::QueueSort => "queueSort",
            Self::PreFilter => "preFilter",
            Self::Filter => "filter",
            Self::PostFilter => "postFilter",
            Self::PreScore => "preScore",
            Self::Score => "score",
            Self::Reserve => "reserve",
            Self::Permit => "permit",
            Self::PreBind => "preBind",
            Self::Bind => "bind",
            Self::PostBind => "postBind",
        }
    }
}

/// Several points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points(u16);

impl Points {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self((1 << Point::ALL.len()) - 1);

    /// These points.
    #[must_use]
    pub const fn of(points: &[Point]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < points.len() {
            #[expect(clippy::indexing_slicing, reason = "the loop ends before the slice does")]
            let point = points[at];
            bits |= 1 << point as u16;
            at += 1;
        }
        Self(bits)
    }

    /// Whether a point is among them.
    #[must_use]
    pub const fn contains(self, point: Point) -> bool {
        self.0 & (1 << point as u16) != 0
    }

    /// These and one more.
    #[must_use]
    pub const fn with(self, point: Point) -> Self {
        Self(self.0 | (1 << point as u16))
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}
