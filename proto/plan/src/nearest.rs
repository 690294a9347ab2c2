//! The name that a user probably meant.

/// The name most similar to the wanted one, if at most a third of its letters differ.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = wanted.to_lowercase().chars().take(64).collect();
    let distance_max = wanted.len() / 3;
    let near = |name: &&str| name.chars().count().abs_diff(wanted.len()) <= distance_max;
    let ranked = names.into_iter().filter(near).map(|name| {
        (
            distance(&wanted, &name.to_lowercase().chars().take(64).collect::<Vec<_>>()),
            name,
        )
    });
    ranked
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, name)| name)
}

/// Edit distance with insertions, deletions, substitutions and swaps of adjacent letters (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
