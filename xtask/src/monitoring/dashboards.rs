//! The dashboards, as tables of panels, and how Grafana wants them.

mod panels;

use serde_json::{Value, json};

/// Of Grafana 12; later ones migrate it when they load it.
const SCHEMA_VERSION: u32 = 41;
/// Grafana's grid.
const COLUMNS: u32 = 24;

/// A page of panels.
struct Dashboard {
    /// Name of the file without its end, and what links to it are made of.
    name: &'static str,
    title: &'static str,
    description: &'static str,
    rows: &'static [Row],
}

struct Row {
    title: &'static str,
    panels: &'static [Panel],
}

struct Panel {
    title: &'static str,
    /// What somebody who sees it for the first time has to know.
    description: &'static str,
    kind: Kind,
    /// A unit of Grafana.
    unit: &'static str,
    /// Expressions and how their series are called. `@` in an expression stands for the namespaces that are chosen.
    queries: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy)]
enum Kind {
    /// One number, green.
    Number,
    /// One number, red unless it is 0.
    Zero,
    /// One number, red if it is 0.
    Some,
    /// Curves over time.
    Series,
}

impl Kind {
    /// Width and height in the grid.
    fn size(self) -> (u32, u32) {
        match self {
            Self::Series => (8, 8),
            Self::Number | Self::Zero | Self::Some => (4, 4),
        }
    }

    fn grafana_type(self) -> &'static str {
        match self {
            Self::Series => "timeseries",
            Self::Number | Self::Zero | Self::Some => "stat",
        }
    }

    /// From which value on a number has which colour.
    fn thresholds(self) -> Value {
        match self {
            Self::Number | Self::Series => json!([{"color": "green", "value": null}]),
            Self::Zero => json!([{"color": "green", "value": null}, {"color": "red", "value": 1}]),
            Self::Some => json!([{"color": "red", "value": null}, {"color": "green", "value": 1}]),
        }
    }
}

/// Name of the file and content of each dashboard.
pub(super) fn all() -> Vec<(String, Value)> {
    let dashboards = panels::ALL.iter();
    dashboards
        .map(|dashboard| (format!("{}.json", dashboard.name), dashboard.to_json()))
        .collect()
}

/// Every expression of every panel, with where it stands.
pub(super) fn expressions() -> Vec<(String, String)> {
    let mut expressions = Vec::new();
    for dashboard in panels::ALL {
        for panel in dashboard.rows.iter().flat_map(|row| row.panels) {
            for (expression, _) in panel.queries {
                let place = format!("{}.json, {}", dashboard.name, panel.title);
                expressions.push((place, complete(expression)));
            }
        }
    }
    expressions
}

fn complete(expression: &str) -> String {
    expression.replace('@', "namespace=~\"$namespace\"")
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Dashboard {
    fn to_json(&self) -> Value {
        let mut panels = Vec::new();
        let mut y = 0;
        for row in self.rows {
            panels.push(json!({
                "id": panels.len() + 1,
                "type": "row",
                "title": row.title,
                "collapsed": false,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in row.panels {
                let (w, h) = panel.kind.size();
                if x + w > COLUMNS {
                    (x, y, height) = (0, y + height, 0);
                }
                let place = json!({"x": x, "y": y, "w": w, "h": h});
                panels.push(panel.to_json(panels.len() + 1, place));
                (x, height) = (x + w, height.max(h));
            }
            y += height;
        }
        json!({
            "uid": self.name,
            "title": self.title,
            "description": self.description,
            "tags": ["contrast"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "",
            "links": [{"type": "dashboards", "title": "Contrast", "tags": ["contrast"], "includeVars": true, "keepTime": true}],
            "annotations": {"list": [{
                "name": "Alerts",
                "enable": true,
                "iconColor": "red",
                "datasource": datasource(),
                "expr": complete(r#"ALERTS{@,alertname=~"Contrast.+",alertstate="firing"}"#),
                "titleFormat": "{{alertname}}",
            }]},
            "templating": {"list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "namespace",
                    "label": "Namespace",
                    "type": "query",
                    "datasource": datasource(),
                    "query": {"query": "label_values(contrast_build_info, namespace)", "refId": "namespace"},
                    "refresh": 2,
                    "sort": 1,
                    "multi": true,
                    "includeAll": true,
                    "allValue": ".*",
                    "current": {"text": ["All"], "value": ["$__all"]},
                },
            ]},
            "panels": panels,
        })
    }
}

impl Panel {
    fn to_json(&self, id: usize, place: Value) -> Value {
        let targets = ('A'..).zip(self.queries).map(|(id, (expression, legend))| {
            json!({
                "refId": id.to_string(),
                "datasource": datasource(),
                "expr": complete(expression),
                "legendFormat": legend,
                "instant": !matches!(self.kind, Kind::Series),
                "range": matches!(self.kind, Kind::Series),
            })
        });
        let targets: Vec<_> = targets.collect();
        let options = match self.kind {
            Kind::Series => json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            _ => json!({
                "colorMode": "value",
                "graphMode": "none",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                "textMode": "auto",
            }),
        };
        json!({
            "id": id,
            "type": self.kind.grafana_type(),
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": place,
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit,
                    "thresholds": {"mode": "absolute", "steps": self.kind.thresholds()},
                },
                "overrides": [],
            },
            "options": options,
            "targets": targets,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;

    use super::*;

    /// x, y, width and height.
    fn place(panel: &Value) -> [u64; 4] {
        ["x", "y", "w", "h"].map(|side| {
            let found = panel.pointer(&format!("/gridPos/{side}"));
            found.and_then(Value::as_u64).expect("a place")
        })
    }

    #[test]
    fn panels_have_places_of_their_own() {
        for (name, dashboard) in all() {
            let panels = dashboard["panels"].as_array().expect("panels");
            let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
            assert_eq!(ids.len(), panels.len(), "{name}");
            let mut taken = BTreeSet::new();
            for panel in panels {
                let [x, y, w, h] = place(panel);
                assert!(x + w <= u64::from(COLUMNS), "{name}: {panel}");
                for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                    assert!(taken.insert(cell), "{name}: {cell:?} is taken: {panel}");
                }
            }
        }
    }

    #[test]
    fn every_query_is_of_the_chosen_namespaces() {
        for (place, expression) in expressions() {
            let selectors = expression.matches('{').count();
            let chosen = expression.matches("{namespace=~\"$namespace\"").count();
            assert!(
                selectors > 0 && selectors == chosen,
                "{place}: {expression}"
            );
            let names = super::super::reference::names(&expression).count();
            assert_eq!(names, selectors, "{place}: {expression}");
        }
    }
}
