//! A scheduler whose plugins are measured.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Scheduler;
use crate::framework::{PluginTimes, Stopwatch, Timed, Timings};

impl Scheduler {
    /// Measures the plugins of all profiles with this clock, from now on.
    pub(crate) fn measure(&mut self, clock: Arc<dyn Stopwatch>) -> Arc<Timings> {
        let others = self.others.iter_mut().flat_map(|p| &mut p.slots);
        let slots: Vec<_> = self.profile.slots.iter_mut().chain(others).collect();
        let mut times: Vec<(&'static str, Arc<PluginTimes>)> = Vec::new();
        for slot in &slots {
            let name = slot.plugin.name();
            if times.iter().all(|(n, _)| *n != name) {
                times.push((name, Arc::default()));
            }
        }
        let timings = Arc::new(Timings::new(clock, times.clone()));
        for slot in slots {
            let name = slot.plugin.name();
            if let Some((_, times)) = times.iter().find(|(n, _)| *n == name) {
                let plugin = Arc::clone(&slot.plugin);
                slot.plugin = Arc::new(Timed::new(plugin, Arc::clone(&timings), Arc::clone(times)));
            }
        }
        timings
    }
}
