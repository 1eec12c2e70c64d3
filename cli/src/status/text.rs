//! The form for people.

use std::io::{self, Write};

use super::{Active, Audit, Cluster, Evidence, Member, Quorum, Status, age};
use crate::{
    output::{Paint, Render},
    verify::report::INSECURE_BANNER,
};

/// Hex digits of a hash that tell members of one deployment apart.
const SHORT_DIGITS: usize = 12;

impl Render for Status {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        if self.insecure {
            writeln!(out, "{}\n", paint.alarming(INSECURE_BANNER))?;
        }
        let Self { place, role, .. } = self;
        match &self.not_serving_because {
            None => writeln!(out, "{} {place} ({role})", paint.good("serving:"))?,
            Some(reason) => writeln!(
                out,
                "{} {place} ({role}): {reason}",
                paint.bad("not serving:")
            )?,
        }
        writeln!(out)?;
        match &self.active {
            Some(active) => active.text(out)?,
            None => writeln!(out, "manifest:    none was ever set")?,
        }
        if let Some(quorum) = &self.quorum {
            quorum.text(out, paint)?;
        }
        if let Some(audit) = &self.audit {
            audit.text(out, paint)?;
        }
        match &self.cluster {
            Some(cluster) => cluster.text(out, paint),
            None => writeln!(out, "cluster:     none"),
        }
    }
}

impl Active {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "manifest:    {}, active here for {}",
            self.manifest_sha256,
            age(self.age_ms)
        )?;
        writeln!(
            out,
            "transition:  {}, number {}",
            self.transition, self.generation
        )
    }
}

impl Audit {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let Self { sequence, hash, .. } = self;
        match self.lost {
            0 => writeln!(out, "audit:       record {sequence}, {hash}"),
            lost => {
                let lost = format!("{lost} decision(s) not recorded");
                writeln!(
                    out,
                    "audit:       record {sequence}, {hash}, {}",
                    paint.alarming(&lost)
                )
            }
        }
    }
}

impl Quorum {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let bound = age(self.bound_ms);
        let last = match self.confirmed_ago_ms {
            Some(ago) => format!("last confirmed {} ago", age(ago)),
            None => "never confirmed".to_owned(),
        };
        match self.confirmed {
            true => writeln!(
                out,
                "quorum:      {last}, certificates need at most {bound}"
            ),
            false => writeln!(
                out,
                "quorum:      {}: {last}, certificates need at most {bound}",
                paint.bad("no quorum")
            ),
        }
    }
}

impl Cluster {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let leader = match (&self.leader, self.members.iter().find(|one| one.leader)) {
            (Some(_), Some(member)) => format!("leader {}", member.place),
            (Some(node), None) => format!("leader {node} (no member)"),
            (None, _) => paint.bad("no leader"),
        };
        writeln!(
            out,
            "cluster:     {}, term {}, {leader}, committed {}, applied {}",
            short(&self.id),
            self.term,
            self.committed,
            self.applied
        )?;
        writeln!(out)?;
        let heads = [
            "MEMBER", "IDENTITY", "VOTES", "ROLE", "HEARD", "LAG", "EVIDENCE",
        ];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(self.members.iter().map(Member::cells));
        table(out, &rows)
    }
}

impl Member {
    fn cells(&self) -> [String; 7] {
        let mut place = self.place.clone();
        if self.asked {
            place.push_str(" *");
        }
        [
            place,
            self.node.clone(),
            if self.voter { "yes" } else { "no" }.to_owned(),
            match (self.leader, self.voter) {
                (true, _) => "leader",
                (false, true) => "follower",
                (false, false) => "learner",
            }
            .to_owned(),
            self.heard_ago_ms
                .map_or_else(|| "-".to_owned(), |ago| format!("{} ago", age(ago))),
            self.lag
                .map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
            self.evidence
                .as_ref()
                .map_or_else(|| "-".to_owned(), Evidence::shown),
        ]
    }
}

impl Evidence {
    fn shown(&self) -> String {
        let insecure = if self.insecure { " INSECURE" } else { "" };
        format!(
            "{}{insecure}, {}, policy {}",
            self.tee,
            self.reference,
            short(&self.policy)
        )
    }
}

/// Our own hex text; it has only ASCII characters.
fn short(hex: &str) -> &str {
    hex.get(..SHORT_DIGITS).unwrap_or(hex)
}

/// Columns as wide as their widest cell; the last one ends the line.
pub(crate) fn table<const COLUMNS: usize>(
    out: &mut dyn Write,
    rows: &[[String; COLUMNS]],
) -> io::Result<()> {
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    });
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
