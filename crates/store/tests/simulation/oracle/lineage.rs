//! What was acknowledged, what was restored, and which descends from which.

use bytes::Bytes;

use super::{Client, Oracle, Promise};
use crate::bucket::Bucket;

/// A term of leadership, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Term(pub(crate) usize);

/// A state: what one term made of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) term: Term,
    pub(crate) epoch: u64,
}

#[derive(Debug)]
pub(super) struct TermFacts {
    version: u64,
    instance: String,
    client: Client,
}

#[derive(Debug)]
pub(super) struct Ack {
    node: Node,
    at: u64,
}

#[derive(Debug)]
pub(super) struct Restored {
    by: Term,
    node: Option<Node>,
}

impl Node {
    /// The body of a partial.
    pub(crate) fn body(self, vnode: u32) -> Bytes {
        Bytes::from(format!("term {} epoch {} vnode {vnode}", self.term.0, self.epoch))
    }

    /// What a body says of itself.
    pub(crate) fn of(body: &[u8]) -> Self {
        let text = std::str::from_utf8(body).unwrap();
        let mut words = text.split(' ');
        let mut number = || words.nth(1).unwrap().parse::<u64>().unwrap();
        let (term, epoch) = (number(), number());
        Self { term: Term(usize::try_from(term).unwrap()), epoch }
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch {} of term {}", self.epoch, self.term.0)
    }
}

impl Oracle {
    /// A process begins to lead with this version, which no other process leads with.
    pub(crate) fn begins_term(&mut self, version: u64, instance: &str, client: Client) -> Term {
        self.terms.push(TermFacts { version, instance: instance.to_owned(), client });
        Term(self.terms.len() - 1)
    }

    /// A term goes on from one state to the next.
    pub(crate) fn continues(&mut self, node: Node, parent: Option<Node>) {
        self.parents.insert(node, parent);
    }

    fn descends(&self, node: Option<Node>, from: Node) -> bool {
        let mut at = node;
        while let Some(node) = at {
            if node == from {
                return true;
            }
            at = self.parents.get(&node).copied().flatten();
        }
        false
    }

    /// A leader was told `Ok(true)`.
    pub(crate) fn acknowledged(&mut self, bucket: &Bucket, node: Node, now: u64) {
        let facts = &self.terms[node.term.0];
        let (instance, version, client) = (facts.instance.clone(), facts.version, facts.client);
        if self.clients.get(client.0).is_some_and(|client| client.lost) {
            self.object(
                Promise::RegisterLost,
                format!("{node} was acknowledged by one who was shown a register that fell"),
            );
        }
        if let Some(looked) = self.clients.get(client.0).and_then(|client| client.looked)
            && let Some((floor, at)) = self.floors.range(node.epoch + 1..).find(|(_, at)| **at < looked)
        {
            let how = format!(
                "{node} was acknowledged below the floor {floor}, which stood since {at} ms; its leader looked at {looked} ms"
            );
            self.object(Promise::AboveFloor, how);
        }
        let standing = bucket.seal(node.epoch).map(|object| object.body.clone());
        let sealed_by = |body: &Bytes| body.as_ref() == instance.as_bytes();
        let ours = match &standing {
            Some(body) => sealed_by(body),
            None => self.seals.get(&node.epoch).is_some_and(|seals| seals.iter().any(|(body, _)| sealed_by(body))),
        };
        if !ours {
            let by = standing.map_or_else(|| "nobody".to_owned(), |body| String::from_utf8_lossy(&body).into_owned());
            self.object(Promise::OwnSeal, format!("{node} was acknowledged to {instance}, and is sealed by {by}"));
        }
        if self.scenario.lineage {
            let lacking = self
                .restored
                .iter()
                .find(|restored| self.terms[restored.by.0].version > version && !self.descends(restored.node, node));
            if let Some(Restored { by, node: restored }) = lacking {
                let how = format!(
                    "{node} of version {version} was acknowledged, and term {} (version {}) has restored {}, which does not descend from it",
                    by.0,
                    self.terms[by.0].version,
                    shown(*restored)
                );
                self.object(Promise::Lineage, how);
            }
        }
        self.acks.push(Ack { node, at: now });
        self.nothing_lost(bucket, "it was acknowledged");
    }

    /// A leader was told that what it has restored may be used. `asked` is the millisecond at which it asked for the last word.
    pub(crate) fn has_restored(&mut self, by: Term, bodies: &[Bytes], asked: u64) {
        let states: Vec<Node> = bodies.iter().map(|body| Node::of(body)).collect();
        let node = states.first().copied();
        if let Some(other) = states.iter().find(|state| Some(**state) != node) {
            if self.scenario.unmixed {
                self.object(Promise::Unmixed, format!("term {} has restored {} mixed with {other}", by.0, shown(node)));
            }
            // A state that descends from nothing.
            self.restored.push(Restored { by, node: None });
            return;
        }
        let version = self.terms[by.0].version;
        if self.scenario.lineage {
            let lacking = self.acks.iter().find(|ack| {
                let before = self.terms[ack.node.term.0].version < version || ack.at <= asked;
                before && !self.descends(node, ack.node)
            });
            if let Some(ack) = lacking {
                let how = format!(
                    "term {} (version {version}) has restored {}, which does not descend from {}, acknowledged at {} ms",
                    by.0,
                    shown(node),
                    ack.node,
                    ack.at
                );
                self.object(Promise::Lineage, how);
            }
        }
        self.restored.push(Restored { by, node });
    }

    /// Somebody beside the leader was told that what he has restored may be used. He asked for it at the millisecond `begun`.
    pub(crate) fn has_followed(&mut self, bodies: &[Bytes], begun: u64) {
        let states: Vec<Node> = bodies.iter().map(|body| Node::of(body)).collect();
        let node = states.first().copied();
        if let Some(other) = states.iter().find(|state| Some(**state) != node) {
            if self.scenario.unmixed {
                self.object(Promise::Unmixed, format!("{} was restored mixed with {other}", shown(node)));
            }
            return;
        }
        let lacking = self.acks.iter().find(|ack| ack.at < begun && !self.descends(node, ack.node));
        if self.scenario.lineage
            && let Some(ack) = lacking
        {
            let how =
                format!("{} was restored, which does not descend from {}, acknowledged before", shown(node), ack.node);
            self.object(Promise::Lineage, how);
        }
    }

    /// A leader has read an epoch by its number, and was told that it was whole.
    pub(crate) fn has_read(&mut self, by: Term, bodies: &[Bytes]) {
        let states: Vec<Node> = bodies.iter().map(|body| Node::of(body)).collect();
        if self.scenario.unmixed
            && let Some(other) = states.iter().find(|state| Some(*state) != states.first())
        {
            let how = format!("term {} has read {} mixed with {other}", by.0, shown(states.first().copied()));
            self.object(Promise::Unmixed, how);
        }
    }

    pub(crate) fn acknowledgements(&self) -> usize {
        self.acks.len()
    }

    /// The highest epoch that was acknowledged.
    pub(super) fn highest_acknowledged(&self) -> Option<u64> {
        self.acks.iter().map(|ack| ack.node.epoch).max()
    }

    /// What was acknowledged last in number, or something sealed above it, is there and whole.
    pub(super) fn nothing_lost(&mut self, bucket: &Bucket, when: &str) {
        let Some(highest) = self.highest_acknowledged() else { return };
        let vnodes = self.setup.vnodes;
        let stands = bucket
            .sealed()
            .into_iter()
            .rev()
            .take_while(|epoch| *epoch >= highest)
            .any(|epoch| bucket.is_complete(epoch, vnodes));
        if !stands {
            let how = format!(
                "epoch {highest} was acknowledged, and neither it nor a later one is sealed and whole when {when}"
            );
            self.object(Promise::NothingLost, how);
        }
    }
}

fn shown(node: Option<Node>) -> String {
    node.map_or_else(|| "nothing".to_owned(), |node| node.to_string())
}
