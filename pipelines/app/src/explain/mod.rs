//! Why a record is there: the tree of its causes, with what each operator on the way saw, from the recorded epochs run again.

mod condition;
mod find;
mod follow;
mod gather;
mod grow;
pub mod html;
mod known;
pub mod past;
mod restricted;
mod seek;
mod session;
pub mod states;
pub mod steps;
mod stretch;
pub mod text;
pub mod tree;
mod words;

use std::sync::Arc;

use anyhow::bail;
use tidewire_engine::log::Log;
use tidewire_engine::only::OnlyKeys;
use tidewire_engine::plan::StageSpec;
use tidewire_schemas::SchemaBook;

pub use condition::Condition;
pub use find::{Place, Target};
pub use words::plain;

use grow::Grower;
use session::{Session, Stop};
use tree::{Explanation, Proof, Size, TreeNode};

/// Most times that more is run again for one tree; each time brings at least one record further.
const MAX_ROUNDS: usize = 400;

/// Explains records of one log.
pub struct Explainer<'a> {
    log: &'a dyn Log,
    book: &'a Arc<SchemaBook>,
    stages: Vec<Arc<StageSpec>>,
    /// The keys that the log is restricted to.
    only: Option<Arc<OnlyKeys>>,
    /// How many records deep a tree goes.
    depth: usize,
}

impl<'a> Explainer<'a> {
    /// For the stages that ran on the log; `only`: the keys that it is restricted to, where it is a bundle of some.
    pub fn new(
        log: &'a dyn Log,
        book: &'a Arc<SchemaBook>,
        stages: Vec<Arc<StageSpec>>,
        only: Option<Arc<OnlyKeys>>,
        depth: usize,
    ) -> Self {
        Self { log, book, stages, only, depth }
    }

    fn session(&self) -> Session<'a> {
        Session::new(self.log, self.book, self.stages.clone(), self.only.clone())
    }

    /// The first records of all orders.
    pub fn all_orders(&self) -> anyhow::Result<Vec<(String, Place)>> {
        find::all_orders(&self.session())
    }

    /// Finds what was asked for, and explains it. `progress` is told how many records were looked at.
    pub fn explain(&self, asked: &str, progress: &mut dyn FnMut(u64)) -> anyhow::Result<Explanation> {
        let session = self.session();
        let target = Target::parse(asked);
        let place = target.find(&session, progress)?;
        let focus = match &target {
            Target::Feature { name, .. } => Some(name.to_string()),
            _ => None,
        };
        self.grow(session, asked, &place, focus)
    }

    /// Explains a record whose place is known.
    pub fn explain_at(&self, asked: &str, place: &Place) -> anyhow::Result<Explanation> {
        self.grow(self.session(), asked, place, None)
    }

    fn grow(
        &self,
        mut session: Session<'a>,
        asked: &str,
        place: &Place,
        focus: Option<String>,
    ) -> anyhow::Result<Explanation> {
        let mut has_states = false;
        for _ in 0..MAX_ROUNDS {
            let mut grower = Grower::new(&session, self.depth, focus.clone());
            match grower.record(&place.at, place.offset, "", 0) {
                Ok(root) if has_states => {
                    let size = Size {
                        records: grower.records,
                        external: grower.external,
                        epochs: session.epochs_run,
                        cut_short: grower.cut_short,
                    };
                    let proof = Proof {
                        records_same: grower.same,
                        run_again: grower.run_again.unwrap_or_default(),
                        ..Proof::default()
                    };
                    return finish(&session, asked, place, root, size, proof, focus.as_deref());
                }
                Ok(_) => {
                    let numbers = std::mem::take(&mut grower.numbers);
                    session.add_states(numbers)?;
                    has_states = true;
                }
                Err(Stop::Need(need)) => {
                    has_states = false;
                    session.supply(need)?;
                }
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        bail!("the tree of {asked} needs more of the past than {MAX_ROUNDS} runs give: use a smaller --depth")
    }
}

fn finish(
    session: &Session<'_>,
    asked: &str,
    place: &Place,
    root: TreeNode,
    size: Size,
    mut proof: Proof,
    focus: Option<&str>,
) -> anyhow::Result<Explanation> {
    let after = find::after(session, place)?;
    if !proof.run_again.is_null() {
        proof.recorded = root.value.clone();
    }
    (proof.verdict, proof.text) = match (&root.made, root.external) {
        (Some(made), _) if made.same_bytes == Some(true) => {
            let from = match made.from_cut {
                0 => "the very beginning".to_owned(),
                cut => format!("the cut of epoch {cut}"),
            };
            let text = format!(
                "same bytes: {}/{} run again from {from} gives this record of epoch {} as it lies in the log",
                made.stage, made.task, made.epoch
            );
            ("same", text)
        }
        (Some(made), _) if made.same_bytes == Some(false) => (
            "differs",
            format!("epoch {} of {}/{} gives another record now", made.epoch, made.stage, made.task),
        ),
        (_, true) => ("unknown", "it came from outside: there is nothing to run again".to_owned()),
        _ => ("unknown", root.notes.first().cloned().unwrap_or_else(|| "it can not be run again".to_owned())),
    };
    // A build or a file that gives something else is a difference too, though not of this record alone.
    if root.made.is_none() && root.notes.iter().any(|note| note.contains("gives something else in epoch")) {
        proof.verdict = "differs";
    }
    let why = match focus {
        Some(name) => words::why_feature(name, &root),
        None => words::why(&root, &after),
    };
    let mut notes = Vec::new();
    if root.made.as_ref().is_some_and(|made| !made.same_build || !made.same_file) {
        notes.push(
            "another build or pipeline file made this record. This one gives the same outputs; what passed between \
             operators is on no topic, and is shown as this one does it"
                .to_owned(),
        );
    }
    Ok(Explanation { asked: asked.to_owned(), why, notes, proof, root, after, size })
}
