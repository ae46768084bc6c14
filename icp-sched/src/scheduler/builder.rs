//! Putting a scheduler together.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::extras::{Extra, Wanted};
use super::fast::{Fast, Rules, is_for_volumes};
use super::preempt::{Candidates, Rooms};
use super::profile::{Profile, Sampling};
use super::{DEFAULT_SCHEDULER, Scheduler, TieBreak};
use crate::framework::{Kept, Part, Plugin, Points, Slot};
use crate::plugins;

/// Puts a [`Scheduler`] together.
pub struct SchedulerBuilder {
    slots: Vec<Slot>,
    ties: TieBreak,
    fast: bool,
    name: String,
    percentage: u8,
    preempts: bool,
    candidates: Option<Candidates>,
    gates: bool,
    binds: bool,
    profiles: Vec<SchedulerBuilder>,
}

fn everywhere(plugins: Vec<(Box<dyn Plugin>, i64)>) -> Vec<Slot> {
    let slots = plugins.into_iter().map(|(plugin, weight)| Slot {
        plugin: plugin.into(),
        weight,
        points: Points::ALL,
    });
    slots.collect()
}

impl Default for SchedulerBuilder {
    fn default() -> Self {
        Self {
            slots: everywhere(plugins::defaults()),
            ties: TieBreak::default(),
            fast: true,
            name: DEFAULT_SCHEDULER.into(),
            percentage: 100,
            preempts: true,
            candidates: None,
            gates: true,
            binds: true,
            profiles: Vec::new(),
        }
    }
}

impl fmt::Debug for SchedulerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.slots.iter().map(|s| (s.plugin.name(), s.weight));
        f.debug_map().entries(names).finish()
    }
}

impl SchedulerBuilder {
    /// Adds a plugin after the others; its points are multiplied by `weight`.
    #[must_use]
    pub fn plugin(mut self, plugin: impl Plugin + 'static, weight: i64) -> Self {
        self.slots.push(Slot { plugin: Arc::new(plugin), weight, points: Points::ALL });
        self
    }

    /// Puts a plugin in the place, and with the weight, of the one that has its name; after the others with weight 1 if
    /// there is none.
    #[must_use]
    pub fn replace(mut self, plugin: impl Plugin + 'static) -> Self {
        match self.slots.iter_mut().find(|s| s.plugin.name() == plugin.name()) {
            Some(slot) => slot.plugin = Arc::new(plugin),
            None => self.slots.push(Slot { plugin: Arc::new(plugin), weight: 1, points: Points::ALL }),
        }
        self
    }

    /// Leaves out the plugin of that name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.slots.retain(|s| s.plugin.name() != name);
        self
    }

    /// Gives the plugin of that name another weight.
    #[must_use]
    pub fn weight(mut self, name: &str, weight: i64) -> Self {
        for slot in self.slots.iter_mut().filter(|s| s.plugin.name() == name) {
            slot.weight = weight;
        }
        self
    }

    /// How one of several best nodes is chosen.
    #[must_use]
    pub fn ties(mut self, ties: TieBreak) -> Self {
        self.ties = ties;
        self
    }

    /// Asks every plugin about every node for every pod, instead of following changes: the same decisions, slower.
    #[must_use]
    pub fn exhaustive(mut self) -> Self {
        self.fast = false;
        self
    }

    /// These plugins with their weights, in this order, and no others.
    #[must_use]
    pub fn only(mut self, plugins: Vec<(Box<dyn Plugin>, i64)>) -> Self {
        self.slots = everywhere(plugins);
        self
    }

    /// The same, each with the points at which it has a say.
    pub(crate) fn only_at(mut self, plugins: Vec<(Box<dyn Plugin>, i64, Points)>) -> Self {
        let slots = plugins.into_iter().map(|(plugin, weight, points)| Slot {
            plugin: plugin.into(),
            weight,
            points,
        });
        self.slots = slots.collect();
        self
    }

    /// Places pods whatever scheduling gates they have (without the plugin SchedulingGates).
    #[must_use]
    pub const fn without_gates(mut self) -> Self {
        self.gates = false;
        self
    }

    /// Binds no pod that no plugin of one's own binds (without the plugin DefaultBinder): such a pod tries again.
    #[must_use]
    pub const fn without_binder(mut self) -> Self {
        self.binds = false;
        self
    }

    /// The name by which pods ask for this scheduler ([`DEFAULT_SCHEDULER`] unless told otherwise).
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Looks for nodes that will do until there are so many percent of all, and chooses among these
    /// (`percentageOfNodesToScore`); 0 is upstream's adaptive rule, 50 less one for each 125 nodes and at least 5. In
    /// clusters of fewer than 100 nodes, and with 100 (the default), every node is looked at.
    ///
    /// Nodes are looked at in the order in which they came, beginning after the last node that the decision before looked
    /// at: which nodes are sampled depends on the order of calls alone, never on chance or on threads.
    /// [`Scheduler::explain`] looks at all nodes all the same.
    #[must_use]
    pub fn percentage_of_nodes(mut self, percentage: u8) -> Self {
        self.percentage = percentage.min(100);
        self
    }

    /// Evicts nobody for pods that find no node (without the plugin DefaultPreemption).
    #[must_use]
    pub const fn without_preemption(mut self) -> Self {
        self.preempts = false;
        self
    }

    /// Looks for pods to evict on nodes from a drawn one on, until so many of them will do and one of these breaks no
    /// disruption budget (`minCandidateNodesPercentage` and `minCandidateNodesAbsolute`; upstream's are 10 and 100). So
    /// many are `percentage` of the nodes on which evicting pods could help, or `absolute` if that is more. Unless this
    /// is called, every node is looked at, and the choice is the best there is.
    #[must_use]
    pub fn preemption_candidates(mut self, percentage: u8, absolute: usize) -> Self {
        self.candidates = Some(Candidates { percent: percentage.min(100), absolute });
        self
    }

    /// Adds a profile: pods that ask for a scheduler of its name are decided on by its plugins, on the same cluster. Its
    /// own profiles and ties do not count.
    #[must_use]
    pub fn profile(mut self, profile: Self) -> Self {
        self.profiles.push(profile);
        self
    }

    fn into_profile(self) -> Profile {
        let rules = Rules::of(self.slots.iter()).filter(|_| self.fast);
        let extra = |(slot, s): (usize, &Slot)| {
            let wanted = match s.plugin.kept() {
                None => Wanted::Always,
                Some(Kept(Part::OnTop)) if is_for_volumes(s.plugin.name()) => Wanted::ByVolumes,
                Some(Kept(Part::OnTop)) => Wanted::ByFeatures,
                Some(_) => return None,
            };
            Some(Extra { slot, wanted })
        };
        let extras: Vec<Extra> = self.slots.iter().enumerate().filter_map(extra).collect();
        Profile {
            name: self.name,
            has_own: extras.iter().any(|e| e.wanted == Wanted::Always),
            slots: self.slots,
            fast_plugins: rules.is_some() && extras.iter().all(|e| e.wanted != Wanted::Always),
            fast_on: rules.is_some(),
            extras,
            fast: Fast::new(rules.unwrap_or_default()),
            rooms: Rooms::default(),
            sampling: Sampling::new(self.percentage),
            preempts: self.preempts,
            candidates: self.candidates,
            gates: self.gates,
            binds: self.binds,
        }
    }

    /// A scheduler that knows no nodes yet.
    #[must_use]
    pub fn build(mut self) -> Scheduler {
        let others = core::mem::take(&mut self.profiles).into_iter().map(Self::into_profile).collect();
        let ties = core::mem::take(&mut self.ties);
        Scheduler::new(self.into_profile(), others, ties)
    }
}
