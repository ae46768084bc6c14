//! A decision from the points of all nodes at once.

use alloc::vec::Vec;

use super::choose::{Candidate, Choice, Judge, scaled};
use super::index::{Index, LACKING};
use super::sheet::BLOCK;
use super::state::{ClassState, View};
use crate::cache::NodeId;
use crate::framework::Rejection;
use crate::model::PodSpec;

/// Chooses among all nodes, looking for the first of equals from row `start` on; `None` if no node will do, or if points
/// are beyond what a sweep can hold.
pub(super) fn choose(
    view: View<'_>,
    spec: &PodSpec,
    start: usize,
    hidden: &[(NodeId, Rejection)],
    points: &mut Vec<i16>,
) -> Option<Choice> {
    view.sheet.sweep(view.cluster.columns(), spec, view.rules, points)?;
    for (id, _) in hidden {
        if let Some(slot) = points.get_mut(id.row()) {
            *slot = 0;
        }
    }
    match view.kinds.uniform() {
        Some(kind) if kind.rejection.is_some() => return None,
        // What all nodes get alike does not matter.
        Some(_) => {}
        None => add_kinds(view, points)?,
    }
    let max = points.iter().copied().max().filter(|max| *max > 0)?;
    let feasible = points
        .chunks(COUNTED)
        .map(|some| usize::from(some.iter().map(|p| u8::from(*p > 0)).sum::<u8>()))
        .sum();
    let row = first(points, start, max).or_else(|| first(points, 0, max))?;
    Some(Choice { row, feasible })
}

/// Rows whose number fits into a byte, so that many are counted at once.
const COUNTED: usize = 128;

/// The first row from `start` on with so many points, looking at many at once.
fn first(points: &[i16], start: usize, wanted: i16) -> Option<usize> {
    let from = points.get(start..)?;
    let has = |some: &[i16]| some.iter().fold(false, |found, p| found | (*p == wanted));
    let before: usize = from.chunks(BLOCK).take_while(|some| !has(some)).map(<[i16]>::len).sum();
    let at = from.get(before..)?.iter().position(|p| *p == wanted)?;
    Some(start + before + at)
}

/// Why no node will do, where a sweep found none, and how many nodes each rejection keeps off: by one look at what is
/// free on each. `None` if it takes more than CPU, memory and ephemeral storage to tell.
pub(super) fn refuse(
    view: View<'_>,
    state: &ClassState,
    hidden: &[(NodeId, Rejection)],
) -> Option<Vec<(Rejection, usize)>> {
    if !state.spec.requests.scalars.is_empty() {
        return None;
    }
    let columns = view.cluster.columns();
    let mut by_kind = alloc::vec![0_usize; view.kinds.list().len()];
    let mut by_lack = [(0_usize, 0_usize); LACKING];
    let rejects: Vec<bool> = view.kinds.list().map(|kind| kind.rejection.is_some()).collect();
    let mut numbers = view.kinds.of_row().iter().zip(0..);
    for (have, load) in columns.capacity.slices().zip(columns.load.slices()) {
        // Rows without a node are of no kind.
        for ((have, load), (number, row)) in have.iter().zip(load).zip(&mut numbers) {
            match rejects.get(*number as usize) {
                None => {}
                Some(true) => *by_kind.get_mut(*number as usize)? += 1,
                Some(false) => {
                    let (n, at) = by_lack.get_mut(state.lacks(have, load))?;
                    (*n, *at) = (*n + 1, row);
                }
            }
        }
    }
    for (id, _) in hidden {
        let counted = view.kinds.numbered(id.row());
        let (number, kind) = counted?;
        let n = if kind.rejection.is_some() {
            by_kind.get_mut(number)
        } else {
            let (have, load) = (columns.capacity.get(id.row())?, columns.load.get(id.row())?);
            by_lack.get_mut(state.lacks(have, load)).map(|(n, _)| n)
        };
        *n? -= 1;
    }
    let [(fine, _), lacking @ ..] = by_lack;
    if fine > 0 {
        return None;
    }
    let mut all: Vec<(Rejection, usize)> = Vec::new();
    for (kind, n) in view.kinds.list().zip(by_kind).filter(|(_, n)| *n > 0) {
        all.push((kind.rejection.clone()?, n));
    }
    for (n, row) in lacking.into_iter().filter(|(n, _)| *n > 0) {
        all.push((state.crowded(view, row)?, n));
    }
    all.extend(hidden.iter().map(|(_, r)| (r.clone(), 1)));
    Some(all)
}

/// The same for a class with groups, whose index tells for each row its group, and the points of images.
pub(super) fn choose_by_group(
    view: View<'_>,
    (judge, index): (Judge<'_>, &Index),
    start: usize,
    hidden: &[(NodeId, Rejection)],
    points: &mut Vec<i16>,
) -> Option<Choice> {
    view.sheet.sweep(view.cluster.columns(), judge.spec, view.rules, points)?;
    for (id, _) in hidden {
        if let Some(slot) = points.get_mut(id.row()) {
            *slot = 0;
        }
    }
    let (groups, places) = index.places();
    // The most points in each group, and how many nodes will do.
    let mut tops = alloc::vec![(0_i16, 0_usize); groups.len()];
    for (points, place) in points.iter_mut().zip(places.clone()) {
        let slot = place.and_then(|(group, images)| Some((tops.get_mut(group)?, images)));
        match slot.filter(|_| *points > 0) {
            Some(((top, n), images)) => {
                *points = points.saturating_add(i16::try_from(images).ok()?);
                *top = (*top).max(*points);
                *n += 1;
            }
            None => *points = 0,
        }
    }
    let candidates: Vec<usize> = tops
        .iter()
        .zip(groups)
        .enumerate()
        .filter(|(_, ((_, n), group))| *n > 0 && judge.reject(&group.key).is_none())
        .map(|(at, _)| at)
        .collect();
    let of = |at: &usize| Some((tops.get(*at)?, groups.get(*at)?));
    let there = || candidates.iter().filter_map(of);
    let bonuses = judge.bonuses(there().map(|((_, n), group)| Candidate::new(&group.key, *n)).collect());
    let totals = || there().zip(&bonuses).map(|(((top, _), _), bonus)| i64::from(*top) + bonus);
    let max = totals().max()?;
    // What a node of each group has that is among the best.
    let mut wanted = alloc::vec![-1_i16; groups.len()];
    for (at, total) in candidates.iter().zip(totals()) {
        if let (Some(slot), Some((top, _))) = (wanted.get_mut(*at).filter(|_| total == max), tops.get(*at)) {
            *slot = *top;
        }
    }
    let feasible = there().map(|((_, n), _)| n).sum();
    let best = |(points, place): &(&i16, Option<(usize, u32)>)| {
        place.is_some_and(|(group, _)| wanted.get(group) == Some(points))
    };
    let mut from_start = points.iter().zip(places.clone()).skip(start);
    let row = match from_start.position(|row| best(&row)) {
        Some(at) => start + at,
        None => points.iter().zip(places).position(|row| best(&row))?,
    };
    Some(Choice { row, feasible })
}

/// Takes out the nodes whose objects will not do, and adds what the others get for theirs.
fn add_kinds(view: View<'_>, points: &mut [i16]) -> Option<()> {
    let of_row = view.kinds.of_row();
    let mut feasible = alloc::vec![0_u32; view.kinds.list().len()];
    for (kind, points) in of_row.iter().zip(points.iter()) {
        if let Some(n) = feasible.get_mut(*kind as usize) {
            *n += u32::from(*points > 0);
        }
    }
    let present = || view.kinds.list().zip(&feasible).filter(|(k, n)| **n > 0 && k.rejection.is_none());
    let taints = present().map(|(k, _)| k.taints).max().unwrap_or(0);
    let affinity = present().map(|(k, _)| k.affinity).max().unwrap_or(0);
    let rules = view.rules;
    let mut bonuses: Vec<Option<i16>> = Vec::with_capacity(feasible.len());
    for (kind, n) in view.kinds.list().zip(&feasible) {
        bonuses.push(if *n == 0 || kind.rejection.is_some() {
            None
        } else {
            let bonus = kind.images * rules.images
                + rules.taints * scaled(kind.taints, taints, true)
                + rules.affinity * scaled(kind.affinity, affinity, false);
            Some(i16::try_from(bonus).ok().filter(|b| (0..BONUS_MAX).contains(b))?)
        });
    }
    for (kind, points) in of_row.iter().zip(points) {
        match bonuses.get(*kind as usize) {
            Some(Some(bonus)) if *points > 0 => *points += bonus,
            _ => *points = 0,
        }
    }
    Some(())
}

/// With the points of fit and balance it is still a small number.
const BONUS_MAX: i16 = 1 << 14;
