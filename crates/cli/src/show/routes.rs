//! `simplon show routes` and `simplon show bgp-routes`.

use gateway::status::routing::{BgpPath, RouteStatus};
use gateway::status::short_duration;
use gatewayd::admin::Client;

use super::json;
use crate::args::{BgpRoutesArgs, RoutesArgs};
use crate::exit::{Code, Failed};
use crate::say;
use crate::table::aligned;

/// Shows the routes that the kernel was asked for.
pub(super) fn run(args: &RoutesArgs) -> Result<Code, Failed> {
    let (routes, more) = Client::connect(&args.socket.socket)?.routes(args.number)?;
    if args.json { say(&json(&routes)?) } else { say(&(table(&routes) + note(more))) }
}

/// Shows the paths that BGP knows.
pub(super) fn run_bgp(args: &BgpRoutesArgs) -> Result<Code, Failed> {
    let (paths, more) = Client::connect(&args.socket.socket)?.bgp_paths(args.prefix, args.number)?;
    if args.json { say(&json(&paths)?) } else { say(&(bgp_table(&paths) + note(more))) }
}

const fn note(more: bool) -> &'static str {
    if more { "There are more; --number says how many to show\n" } else { "" }
}

fn table(routes: &[RouteStatus]) -> String {
    if routes.is_empty() {
        return "no routes\n".to_owned();
    }
    let heading = ["", "NETWORK", "NEXT HOP", "METRIC", "TABLE", "SOURCE", "AGE", "FROM"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(routes.iter().map(|route| {
        let code = match route.protocol.as_str() {
            "connected" => "C",
            "bgp" => "B",
            _ => "S",
        };
        let dash = || "-".to_owned();
        vec![
            code.to_owned(),
            route.destination.clone(),
            route.next_hops.join(", "),
            route.metric.to_string(),
            route.table.map_or_else(|| "main".to_owned(), |table| table.to_string()),
            route.source.clone().unwrap_or_else(dash),
            route.for_s.map_or_else(dash, short_duration),
            route.from.join(", "),
        ]
    }));
    let count = |code: &str| rows.iter().filter(|row| row[0] == code).count();
    let entries =
        format!("{} entries: {} connected, {} static, {} BGP", routes.len(), count("C"), count("S"), count("B"));
    format!("{entries}\nCodes: C - connected, S - static, B - BGP\n{}", aligned(&rows))
}

fn bgp_table(paths: &[BgpPath]) -> String {
    if paths.is_empty() {
        return "no paths\n".to_owned();
    }
    let heading = ["", "NETWORK", "NEXT HOP", "MED", "LOCPRF", "PATH", "NEIGHBOR", "COMMUNITIES"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(paths.iter().map(|path| {
        let flag = |is: bool, mark: char| if is { mark } else { ' ' };
        let beside = path.is_used && !path.is_best;
        let flags = [flag(path.is_stale, 'S'), '*', if beside { '=' } else { flag(path.is_best, '>') }];
        let as_path = if path.as_path.is_empty() { String::new() } else { format!("{} ", path.as_path) };
        vec![
            flags.iter().collect(),
            path.prefix.clone(),
            path.next_hop.clone(),
            path.med.map_or_else(|| "-".to_owned(), |med| med.to_string()),
            path.local_preference.to_string(),
            format!("{as_path}{}", path.origin),
            path.neighbor.clone().unwrap_or_else(|| "-".to_owned()),
            path.communities.join(" "),
        ]
    }));
    let codes = "Status codes: * valid, > best, = multipath, S stale; origin codes: i IGP, e EGP, ? incomplete\n";
    format!("{codes}{}", aligned(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_their_code_way_and_age() {
        let route = |protocol: &str, hops: &[&str], for_s| RouteStatus {
            destination: "172.31.0.0/16".into(),
            protocol: protocol.into(),
            next_hops: hops.iter().map(|hop| (*hop).to_owned()).collect(),
            metric: 20,
            for_s,
            from: vec!["aws".into()],
            ..RouteStatus::default()
        };
        let text = table(&[
            route("bgp", &["via 169.254.1.1", "via 169.254.2.1"], None),
            route("static", &["tunnel1"], Some(397)),
            route("connected", &["tunnel1"], None),
        ]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected =
            ["B", "172.31.0.0/16", "via", "169.254.1.1,", "via", "169.254.2.1", "20", "main", "-", "-", "aws"];
        assert_eq!(text.lines().next(), Some("3 entries: 1 connected, 1 static, 1 BGP"));
        assert_eq!(lines[3], expected);
        assert_eq!(lines[4], ["S", "172.31.0.0/16", "tunnel1", "20", "main", "-", "6m37s", "aws"]);
        assert_eq!(lines[5][0], "C");
    }

    /// The line of the document: `*> 172.31.0.0/16 169.254.123.133 100 64512 i`.
    #[test]
    fn a_path_has_the_columns_that_routers_show() {
        let path = BgpPath {
            prefix: "172.31.0.0/16".into(),
            next_hop: "169.254.123.133".into(),
            neighbor: Some("169.254.123.133".into()),
            is_best: true,
            is_used: true,
            is_stale: false,
            med: Some(100),
            local_preference: 200,
            as_path: "64512".into(),
            origin: "i".into(),
            communities: vec!["64512:1".into()],
        };
        let second = BgpPath { is_best: false, ..path.clone() };
        let unused = BgpPath { is_used: false, as_path: String::new(), ..second.clone() };
        let text = bgp_table(&[path, second, unused]);
        let line = |n: usize| text.lines().nth(n).unwrap().split_whitespace().collect::<Vec<_>>();
        let rest = ["172.31.0.0/16", "169.254.123.133", "100", "200", "64512", "i", "169.254.123.133", "64512:1"];
        assert_eq!(line(2), [&["*>"][..], &rest].concat());
        assert_eq!(line(3)[0], "*=");
        assert_eq!((line(4)[0], line(4)[5]), ("*", "i"));
    }
}
