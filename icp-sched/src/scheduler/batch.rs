//! Many pods in one call.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Placement, Scheduler, Unschedulable};
use crate::model::Pod;

impl Scheduler {
    /// Decides on pods in their order and holds to each decision: the answers, the state and the draws of ties are those
    /// of [`Scheduler::schedule`] and [`Scheduler::assume`] called for one pod after the other. A pod that is equal to the
    /// one before it, which found no node, gets the same answer without another look.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use icp_sched::Scheduler;
    /// use icp_sched::model::{Node, Pod, PodSpec};
    ///
    /// let mut scheduler = Scheduler::builder().build();
    /// scheduler.cluster_mut().set_node(Node::new("w1", 1_000, 8 << 30, 110));
    /// let spec = Arc::new(PodSpec::asking(400, 1 << 30));
    /// let pods = ["a", "b", "c"].map(|name| Pod::new(name, Arc::clone(&spec)));
    /// let answers = scheduler.schedule_batch(pods);
    /// assert_eq!(answers[1].as_ref().unwrap().name, "w1");
    /// assert_eq!(answers[2].as_ref().unwrap_err().to_string(), "0/1 nodes are available: 1 Insufficient cpu.");
    /// assert_eq!(scheduler.cluster().pod_count(), 2);
    /// ```
    pub fn schedule_batch(
        &mut self,
        pods: impl IntoIterator<Item = Pod>,
    ) -> Vec<Result<Placement, Unschedulable>> {
        let pods = pods.into_iter();
        let mut answers = Vec::with_capacity(pods.size_hint().0);
        let mut refused: Option<(Pod, Unschedulable)> = None;
        for pod in pods {
            let answer = self.schedule_next(&pod, &mut refused);
            if let Ok(placement) = &answer {
                self.assume(pod, placement.node);
            }
            answers.push(answer);
        }
        answers
    }

    /// Decides on the next of several pods, whose places are held to at once; `refused` is the one before if it found no
    /// node.
    pub(crate) fn schedule_next(
        &mut self,
        pod: &Pod,
        refused: &mut Option<(Pod, Unschedulable)>,
    ) -> Result<Placement, Unschedulable> {
        if let Some((before, none)) = &*refused
            && self.is_refused_like(before, pod)
        {
            // The draw is made all the same.
            self.ties.start(self.cluster.columns().rows());
            return Err(none.clone());
        }
        let answer = self.schedule(pod);
        *refused = answer.as_ref().err().map(|none| (pod.clone(), none.clone()));
        answer
    }

    /// Whether a pod would be told the same as an equal one just before, where nothing changed since.
    fn is_refused_like(&self, before: &Pod, pod: &Pod) -> bool {
        (Arc::ptr_eq(&before.spec, &pod.spec) || before.spec == pod.spec)
            && before.scheduler_name == pod.scheduler_name
            && before.node == pod.node
            && self.nominated.is_empty()
            && self.sample().is_none()
    }
}
