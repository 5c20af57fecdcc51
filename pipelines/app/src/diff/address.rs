//! Opens the run that an address names: the live one, one under a prefix, one in another folder or bundle.

use std::collections::BTreeSet;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tidewire_engine::log::Log;
use tidewire_runtime::prefixed::PrefixedLog;

use super::run::Run;
use crate::cli::Context;
use crate::notes::PIPELINES;
use crate::open::{self, OpenLog};
use crate::pipeline::Deployment;

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Folder or bundle; the log at hand if none is named.
    pub path: Option<PathBuf>,
    /// The prefix of its topics.
    pub prefix: Option<String>,
}

impl Address {
    /// Reads `-`, `PREFIX`, `PATH` or `PATH#PREFIX`. A path has a separator in it, or is there.
    pub fn parse(text: &str) -> Self {
        if text == "-" {
            return Self { path: None, prefix: None };
        }
        let is_path = |text: &str| text.contains(MAIN_SEPARATOR) || Path::new(text).exists();
        if let Some((path, prefix)) = text.rsplit_once('#')
            && is_path(path)
            && !prefix.contains(MAIN_SEPARATOR)
            && !Path::new(text).exists()
        {
            let prefix = (!prefix.is_empty()).then(|| prefix.to_owned());
            return Self { path: Some(path.into()), prefix };
        }
        if is_path(text) {
            return Self { path: Some(text.into()), prefix: None };
        }
        Self { path: None, prefix: Some(text.to_owned()) }
    }
}

/// Opens runs. Two runs of one log share it, and it stays open as long as this.
pub struct Opener<'a> {
    context: &'a Context,
    open: Vec<(Option<PathBuf>, OpenLog)>,
}

impl<'a> Opener<'a> {
    /// Opens what is asked for besides the log at hand, which the context names.
    pub fn new(context: &'a Context) -> Self {
        Self { context, open: Vec::new() }
    }

    /// Opens the run that was named so.
    pub fn run(&mut self, name: &str) -> anyhow::Result<Run> {
        let address = Address::parse(name);
        let open = self.log(address.path.as_deref())?;
        let mut place = open.place.to_string();
        let (below, book) = (Arc::clone(&open.log), Arc::clone(&open.book));
        let log: Arc<dyn Log> = match &address.prefix {
            None => Arc::clone(&below),
            Some(prefix) => {
                place = format!("{place}, prefix {prefix}");
                check_prefix(&*below, prefix, &open.place.to_string())?;
                Arc::new(PrefixedLog::new(Arc::clone(&below), prefix)?)
            }
        };
        let mut run = Run::of(name, &place, log, book).with_context(|| format!("run {name} ({place})"))?;
        run.below = Some((below, address.prefix.map(Into::into)));
        Ok(run)
    }

    fn log(&mut self, path: Option<&Path>) -> anyhow::Result<&OpenLog> {
        let at_hand = self.context.bootstrap.is_none() && self.context.deployment.kafka.is_none();
        let path = match path {
            Some(path) => {
                Some(path.canonicalize().with_context(|| format!("there is no log in {}", path.display()))?)
            }
            None if at_hand => self.context.data().canonicalize().ok(),
            None => None,
        };
        if let Some(found) = self.open.iter().position(|(of, _)| *of == path) {
            return Ok(&self.open[found].1);
        }
        let mut context = Context { prefix: None, ..self.context.clone() };
        if let Some(path) = &path {
            context.data = Some(path.clone());
            context.bootstrap = None;
            context.deployment = Deployment::default();
        }
        self.open.push((path, open::to_read(&context)?));
        match self.open.last() {
            Some((_, open)) => Ok(open),
            None => bail!("no log is open"),
        }
    }
}

/// Refuses a prefix that no run has, and names those that there are.
fn check_prefix(log: &dyn Log, prefix: &str, place: &str) -> anyhow::Result<()> {
    if !PrefixedLog::topics_under(log, prefix)?.is_empty() {
        return Ok(());
    }
    let there: BTreeSet<String> = log
        .topics()?
        .iter()
        .filter_map(|topic| Some(topic.name.strip_suffix(PIPELINES)?.strip_suffix('.')?.to_owned()))
        .filter(|prefix| !prefix.is_empty())
        .collect();
    if there.is_empty() {
        bail!(
            "there is no run of prefix {prefix} in {place}, and no other reprocessed run either; a folder or bundle is \
             named with its path, such as ./{prefix}"
        );
    }
    let there: Vec<String> = there.into_iter().collect();
    bail!("there is no run of prefix {prefix} in {place}; there are {}", there.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address = |path: Option<&str>, prefix: Option<&str>| Address {
            path: path.map(PathBuf::from),
            prefix: prefix.map(str::to_owned),
        };
        assert_eq!(Address::parse("-"), address(None, None));
        assert_eq!(Address::parse("ema-6"), address(None, Some("ema-6")));
        assert_eq!(Address::parse("./other"), address(Some("./other"), None));
        assert_eq!(Address::parse("/x/y#ema-6"), address(Some("/x/y"), Some("ema-6")));
        assert_eq!(Address::parse("/x/y#"), address(Some("/x/y"), None));
        assert_eq!(Address::parse("src"), address(Some("src"), None), "it is there");
        assert_eq!(Address::parse("src#p"), address(Some("src"), Some("p")));
    }
}
