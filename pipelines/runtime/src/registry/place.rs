//! Which record is on which topic, and the subjects that follow.

use smol_str::SmolStr;
use tidewire_schemas::{Kind, topics};

/// A kind of record, and a topic that it may be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The topic; `None` where the record may be on any.
    pub topic: Option<SmolStr>,
    /// The record.
    pub kind: Kind,
}

impl Placement {
    /// A kind on a topic.
    pub fn on(topic: impl Into<SmolStr>, kind: Kind) -> Self {
        Self { topic: Some(topic.into()), kind }
    }

    /// The subject: `<topic>-<record name>`, or the record's name alone.
    pub fn subject(&self) -> String {
        match &self.topic {
            Some(topic) => topics::subject(topic, self.kind),
            None => self.kind.full_name(),
        }
    }
}

/// Every kind of this build on the topics that do not depend on a pipeline; one that has none of them by its name.
pub fn standard_placements() -> Vec<Placement> {
    let mut all = Vec::new();
    for &kind in Kind::ALL {
        let before = all.len();
        let on = topics::ALL.iter().filter(|topic| topic.kinds.contains(&kind));
        all.extend(on.map(|topic| Placement::on(topic.name, kind)));
        if all.len() == before {
            all.push(Placement { topic: None, kind });
        }
    }
    all
}
