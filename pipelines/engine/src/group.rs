//! Who holds which task: the group coordinator of the logs that have no broker.
//!
//! It decides as a Kafka group with the cooperative sticky assignor does, but is a plain value: no clock, no I/O,
//! the same calls give the same answers. A log guards it with its own lock, so that a commit is checked and written
//! in one step.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use crate::bugs::{self, Bug};
use crate::log::{Assignment, CommitError};

/// One life of a member: a second join of the same name gets another number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberId {
    /// The member's name (its transactional.id).
    pub name: SmolStr,
    /// Which join of that name this is; never used twice in a group.
    pub incarnation: u64,
}

/// A group that spreads tasks `0..tasks` over its members.
#[derive(Clone, Debug, Default)]
pub struct Group {
    generation: u32,
    joins: u64,
    members: BTreeMap<SmolStr, u64>,
    /// Who holds a task now. `None` only while the group is empty.
    holders: Vec<Option<SmolStr>>,
    /// Who is to hold it. Differs from the holder until that one releases.
    targets: Vec<Option<SmolStr>>,
}

impl Group {
    /// An empty group over tasks `0..tasks`.
    pub fn new(tasks: u32) -> Self {
        Self { holders: vec![None; tasks as usize], targets: vec![None; tasks as usize], ..Self::default() }
    }

    /// Takes a member in. One of the same name is fenced, and the new one goes on with its tasks.
    pub fn join(&mut self, name: &str) -> MemberId {
        self.joins += 1;
        let name = SmolStr::new(name);
        if self.members.insert(name.clone(), self.joins).is_some() {
            // What the replaced life was asked to give up needs no flush from it any more.
            self.drop_holds(|holder, target| *holder == name && target.is_some_and(|t| *t != name));
        }
        self.rebalance();
        MemberId { name, incarnation: self.joins }
    }

    /// Takes a member out; its tasks go to others at once. False if it was out already.
    pub fn leave(&mut self, member: &MemberId) -> bool {
        self.is_member(member) && self.expire(&member.name)
    }

    /// Takes whoever bears that name out, as a broker does when heartbeats stop. What it still sends is fenced.
    pub fn expire(&mut self, name: &str) -> bool {
        if self.members.remove(name).is_none() {
            return false;
        }
        self.drop_holds(|holder, _| holder == name);
        self.rebalance();
        true
    }

    /// Gives back tasks. Those that the member does not hold are left alone.
    /// A task that was not asked back is given out again by the same rule, so it may return to the same member.
    pub fn release(&mut self, member: &MemberId, tasks: &[u32]) -> Result<(), String> {
        self.require_member(member)?;
        let mut changed = false;
        for &task in tasks {
            let Some(holder) = self.holders.get_mut(task as usize) else { continue };
            if holder.as_ref() == Some(&member.name) {
                *holder = None;
                changed = true;
            }
        }
        if changed {
            self.rebalance();
        }
        Ok(())
    }

    /// What a member holds; an error tells that it is out of the group.
    pub fn assignment(&self, member: &MemberId) -> Result<Assignment, String> {
        self.require_member(member)?;
        let mut assignment = Assignment { generation: self.generation, ..Assignment::default() };
        for ((task, holder), target) in (0..).zip(&self.holders).zip(&self.targets) {
            if holder.as_ref() == Some(&member.name) {
                assignment.tasks.push(task);
                if target != holder {
                    assignment.revoking.push(task);
                }
            }
        }
        Ok(assignment)
    }

    /// Whether a member may commit under `generation` and move the positions of `tasks`.
    pub fn check_commit(
        &self,
        member: &MemberId,
        generation: u32,
        tasks: impl IntoIterator<Item = u32>,
    ) -> Result<(), CommitError> {
        if bugs::on(Bug::StaleGeneration) {
            return Ok(());
        }
        self.require_member(member).map_err(CommitError::Fenced)?;
        if generation != self.generation {
            return Err(CommitError::Aborted(format!(
                "member {} committed under generation {generation}, the group is at {}",
                member.name, self.generation
            )));
        }
        for task in tasks {
            match self.holders.get(task as usize) {
                Some(Some(holder)) if *holder == member.name => {}
                Some(Some(holder)) => {
                    return Err(CommitError::Aborted(format!(
                        "member {} does not hold task {task}: {holder} does",
                        member.name
                    )));
                }
                _ => {
                    return Err(CommitError::Aborted(format!(
                        "the group of member {} has no task {task}",
                        member.name
                    )));
                }
            }
        }
        Ok(())
    }

    /// The current generation; 0 before the first join.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Names of the members, in order.
    pub fn members(&self) -> impl Iterator<Item = &SmolStr> {
        self.members.keys()
    }

    /// Whether nobody is in the group.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn is_member(&self, member: &MemberId) -> bool {
        self.members.get(&member.name) == Some(&member.incarnation)
    }

    fn require_member(&self, member: &MemberId) -> Result<(), String> {
        if self.is_member(member) {
            return Ok(());
        }
        let name = &member.name;
        Err(match self.members.contains_key(name) {
            true => format!("a second member named {name} joined and replaced this one"),
            false => format!("member {name} is not in the group any more"),
        })
    }

    fn drop_holds(&mut self, gone: impl Fn(&SmolStr, Option<&SmolStr>) -> bool) {
        for (holder, target) in self.holders.iter_mut().zip(&self.targets) {
            if holder.as_ref().is_some_and(|holder| gone(holder, target.as_ref())) {
                *holder = None;
            }
        }
    }

    /// Balanced to within one task, with as few moves as that allows; then hands out what nobody holds.
    fn rebalance(&mut self) {
        self.generation += 1;
        self.targets = self.balanced();
        for (holder, target) in self.holders.iter_mut().zip(&self.targets) {
            if holder.is_none() {
                holder.clone_from(target);
            }
        }
    }

    fn balanced(&self) -> Vec<Option<SmolStr>> {
        let mut targets = vec![None; self.holders.len()];
        if self.members.is_empty() {
            return targets;
        }
        let (kept, mut pool) = self.kept_and_free();
        let quotas = quotas(&kept, self.holders.len());
        let mut load: BTreeMap<&SmolStr, usize> = BTreeMap::new();
        for (name, mut tasks) in kept {
            // What is held stays before what is only promised, low numbers before high ones.
            tasks.sort_by_key(|&task| (self.holders[task].as_ref() != Some(name), task));
            let quota = quotas[name].min(tasks.len());
            pool.extend(tasks.drain(quota..));
            load.insert(name, tasks.len());
            for task in tasks {
                targets[task] = Some(name.clone());
            }
        }
        pool.sort_unstable();
        // Back to the holder where it has room, then to whoever has most room.
        pool.retain(|&task| {
            let Some(name) = self.holders[task].as_ref() else { return true };
            match (load.get_mut(name), quotas.get(name)) {
                (Some(load), Some(quota)) if *load < *quota => {
                    *load += 1;
                    targets[task] = Some(name.clone());
                    false
                }
                _ => true,
            }
        });
        for task in pool {
            let roomiest = load
                .iter_mut()
                .max_by_key(|(name, load)| (quotas[**name] - **load, std::cmp::Reverse(**name)));
            if let Some((name, load)) = roomiest {
                *load += 1;
                targets[task] = Some((*name).clone());
            }
        }
        targets
    }

    /// What each member has or was promised, and what nobody has.
    fn kept_and_free(&self) -> (BTreeMap<&SmolStr, Vec<usize>>, Vec<usize>) {
        let mut kept: BTreeMap<&SmolStr, Vec<usize>> =
            self.members.keys().map(|name| (name, Vec::new())).collect();
        let mut free = Vec::new();
        for (task, (holder, target)) in self.holders.iter().zip(&self.targets).enumerate() {
            let claim = [target, holder].into_iter().flatten().find(|name| self.members.contains_key(*name));
            match claim.and_then(|name| kept.get_mut(name)) {
                Some(tasks) => tasks.push(task),
                None => free.push(task),
            }
        }
        (kept, free)
    }
}

/// How many tasks each member may hold: those that hold most get the odd ones.
fn quotas<'a>(kept: &BTreeMap<&'a SmolStr, Vec<usize>>, tasks: usize) -> BTreeMap<&'a SmolStr, usize> {
    let (share, odd) = (tasks / kept.len(), tasks % kept.len());
    let mut by_load: Vec<(&'a SmolStr, usize)> =
        kept.iter().map(|(name, tasks)| (*name, tasks.len())).collect();
    by_load.sort_by_key(|&(name, load)| (std::cmp::Reverse(load), name));
    by_load
        .into_iter()
        .enumerate()
        .map(|(place, (name, _))| (name, share + usize::from(place < odd)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    fn tasks(group: &Group, member: &MemberId) -> (Vec<u32>, Vec<u32>) {
        let assignment = group.assignment(member).unwrap();
        (assignment.tasks, assignment.revoking)
    }

    #[test]
    fn one_member_holds_everything() {
        let mut group = Group::new(3);
        let a = group.join("a");
        assert_eq!(tasks(&group, &a), (vec![0, 1, 2], vec![]));
        assert_eq!(group.generation(), 1);
    }

    #[test]
    fn a_moving_task_stays_until_it_is_released() {
        let mut group = Group::new(4);
        let a = group.join("a");
        let b = group.join("b");
        assert_eq!(tasks(&group, &a), (vec![0, 1, 2, 3], vec![2, 3]));
        assert_eq!(tasks(&group, &b), (vec![], vec![]));
        group.release(&a, &[2]).unwrap();
        assert_eq!(tasks(&group, &a), (vec![0, 1, 3], vec![3]));
        assert_eq!(tasks(&group, &b), (vec![2], vec![]));
        group.release(&a, &[3]).unwrap();
        assert_eq!(tasks(&group, &b), (vec![2, 3], vec![]));
    }

    #[test]
    fn leaving_gives_tasks_away_at_once_and_moves_no_other() {
        let mut group = Group::new(6);
        let [a, b, c] = ["a", "b", "c"].map(|name| group.join(name));
        settle(&mut group, &[&a, &b, &c]);
        let (before_a, before_b) = (tasks(&group, &a).0, tasks(&group, &b).0);
        assert!(group.leave(&c));
        assert!(!group.leave(&c));
        let (after_a, after_b) = (tasks(&group, &a), tasks(&group, &b));
        assert_eq!((after_a.0.len(), after_b.0.len()), (3, 3));
        assert!(before_a.iter().all(|task| after_a.0.contains(task)));
        assert!(before_b.iter().all(|task| after_b.0.contains(task)));
        assert!(after_a.1.is_empty() && after_b.1.is_empty());
    }

    #[test]
    fn a_second_join_of_a_name_takes_over_and_fences() {
        let mut group = Group::new(2);
        let first = group.join("a");
        let second = group.join("a");
        assert_eq!(tasks(&group, &second).0, [0, 1]);
        assert!(group.assignment(&first).unwrap_err().contains("replaced"));
        let generation = group.generation();
        assert!(matches!(group.check_commit(&first, generation, []), Err(CommitError::Fenced(_))));
        assert!(group.release(&first, &[0]).is_err());
        assert!(!group.leave(&first));
        group.check_commit(&second, generation, [0, 1]).unwrap();
    }

    #[test]
    fn a_replaced_member_does_not_hold_up_a_move() {
        let mut group = Group::new(2);
        group.join("a");
        let b = group.join("b");
        assert!(tasks(&group, &b).0.is_empty());
        let a = group.join("a");
        assert_eq!(tasks(&group, &a).0, [0]);
        assert_eq!(tasks(&group, &b).0, [1]);
    }

    #[test]
    fn commits_are_checked_by_life_generation_and_task() {
        let mut group = Group::new(2);
        let a = group.join("a");
        group.check_commit(&a, 1, [0, 1]).unwrap();
        let b = group.join("b");
        assert!(matches!(group.check_commit(&a, 1, []), Err(CommitError::Aborted(_))));
        group.check_commit(&a, 2, [0, 1]).unwrap();
        assert!(matches!(group.check_commit(&b, 2, [1]), Err(CommitError::Aborted(_))));
        assert!(matches!(group.check_commit(&a, 2, [2]), Err(CommitError::Aborted(_))));
        group.expire("a");
        assert!(matches!(group.check_commit(&a, 3, []), Err(CommitError::Fenced(_))));
        group.check_commit(&b, 3, [0, 1]).unwrap();
    }

    #[test]
    fn a_task_released_unasked_comes_back() {
        let mut group = Group::new(1);
        let a = group.join("a");
        group.release(&a, &[0, 7]).unwrap();
        assert_eq!(
            group.assignment(&a).unwrap(),
            Assignment { generation: 2, tasks: vec![0], revoking: vec![] }
        );
        group.release(&a, &[7]).unwrap();
        assert_eq!(group.generation(), 2);
    }

    #[test]
    fn more_members_than_tasks() {
        let mut group = Group::new(1);
        let a = group.join("a");
        let b = group.join("b");
        assert_eq!(tasks(&group, &a), (vec![0], vec![]));
        assert_eq!(tasks(&group, &b), (vec![], vec![]));
        group.leave(&a);
        assert_eq!(tasks(&group, &b).0, [0]);
    }

    /// Random joins, leaves, expiries and releases: every task has one holder, nobody loses a task unasked,
    /// and once all is released the spread is even.
    #[test]
    fn random_walks_keep_the_promises() {
        for seed in 1..200_u64 {
            let mut random = seed;
            let mut next = |bound: u64| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % bound
            };
            let count = u32::try_from(next(9)).unwrap() + 1;
            let mut group = Group::new(count);
            let mut live: BTreeMap<SmolStr, MemberId> = BTreeMap::new();
            for _ in 0..60 {
                let before: Vec<_> = live.values().map(|m| (m.clone(), tasks(&group, m).0)).collect();
                let generation = group.generation();
                let name = SmolStr::new(format!("m{}", next(5)));
                let mut given: Vec<u32> = Vec::new();
                match next(4) {
                    0 | 1 if !live.contains_key(&name) => {
                        live.insert(name.clone(), group.join(&name));
                    }
                    0 => assert_eq!(group.expire(&name), live.remove(&name).is_some()),
                    1 => assert!(group.leave(&live.remove(&name).unwrap())),
                    _ => {
                        if let Some(member) = live.get(&name) {
                            given = tasks(&group, member).1;
                            group.release(member, &given).unwrap();
                        }
                    }
                }
                let mut held: Vec<u32> = live.values().flat_map(|m| tasks(&group, m).0).collect();
                held.sort_unstable();
                assert!(live.is_empty() || held == (0..count).collect::<Vec<_>>(), "seed {seed}: {held:?}");
                for (member, had) in before {
                    if live.get(&member.name) == Some(&member) {
                        let has = tasks(&group, &member).0;
                        assert!(had.iter().all(|t| has.contains(t) || given.contains(t)), "seed {seed}");
                        assert!(group.generation() > generation || has == had, "seed {seed}");
                    }
                }
            }
            let members: Vec<_> = live.values().collect();
            settle(&mut group, &members);
            let loads: Vec<_> = members.iter().map(|m| tasks(&group, m).0.len()).collect();
            let spread = loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0);
            assert!(spread <= 1, "seed {seed}: {loads:?}");
        }
    }

    fn settle(group: &mut Group, members: &[&MemberId]) {
        for _ in 0..4 {
            for member in members {
                let revoking = tasks(group, member).1;
                group.release(member, &revoking).unwrap();
            }
        }
    }
}
