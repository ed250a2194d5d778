//! Strongly connected components of a directed graph.

use std::collections::BTreeSet;

/// State of Tarjan's algorithm.
struct Search<'a> {
    successors: &'a [Vec<usize>],
    index: Vec<Option<usize>>,
    low: Vec<usize>,
    stack: Vec<usize>,
    next: usize,
    components: Vec<BTreeSet<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, node: usize) {
        self.index[node] = Some(self.next);
        self.low[node] = self.next;
        self.next += 1;
        self.stack.push(node);
        for &successor in &self.successors[node] {
            match self.index[successor] {
                None => {
                    self.visit(successor);
                    self.low[node] = self.low[node].min(self.low[successor]);
                }
                Some(index) if self.stack.contains(&successor) => self.low[node] = self.low[node].min(index),
                Some(_) => {}
            }
        }
        if self.index[node] == Some(self.low[node]) {
            let start = self.stack.iter().rposition(|member| *member == node).unwrap_or_default();
            self.components.push(self.stack.split_off(start).into_iter().collect());
        }
    }
}

/// Components of at least two nodes, each of which reaches all others.
pub(super) fn cycles(nodes: usize, edges: &[(usize, usize)]) -> Vec<BTreeSet<usize>> {
    let mut successors = vec![Vec::new(); nodes];
    for (from, to) in edges {
        successors[*from].push(*to);
    }
    let mut search = Search {
        successors: &successors,
        index: vec![None; nodes],
        low: vec![0; nodes],
        stack: Vec::new(),
        next: 0,
        components: Vec::new(),
    };
    for node in 0..nodes {
        if search.index[node].is_none() {
            search.visit(node);
        }
    }
    let mut cycles = search.components;
    cycles.retain(|component| component.len() > 1);
    cycles.sort();
    cycles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_components_of_two_or_more_nodes() {
        let edges = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 3), (5, 0), (5, 5)];
        assert_eq!(cycles(6, &edges), [BTreeSet::from([0, 1, 2]), BTreeSet::from([3, 4])]);
    }
}
