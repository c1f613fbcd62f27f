//! A session that starts from a cache, against the one that saved it and one that has nothing to do.

use std::time::Duration;

use aigise_operator::api::AigiseSession;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use super::arms::Ground;
use crate::{Result, print_rows, quantile};

const ROUNDS: usize = 3;

/// How long the steps take beside what they write.
const STEP: Duration = Duration::from_secs(20);

/// What the steps leave in `/opt` and on `/shared`, each.
const TREES: [(&str, &str); 2] = [
    ("few large files, 2 × 192 MiB", "for n in 1 2 3; do head -c 67108864 /dev/urandom >$n; done"),
    ("many small files, 2 × 10,000 of 4 KiB", "head -c 40960000 /dev/urandom | split -b 4096 -a 4 - f"),
];

/// Prints the times to Ready, and from which length of the steps a cache is worth it.
pub async fn print(ground: &Ground) -> Result<()> {
    for (what, fill) in TREES {
        let (mut idle, mut cold, mut hit, mut bytes) = (vec![], vec![], vec![], 0);
        for round in 0..=ROUNDS {
            let name = |arm: &str| format!("cache-{arm}-{round}");
            let make = format!(
                "set -e; sleep {}; for at in /opt/tree /shared/tree; do mkdir $at; cd $at; {fill}; done",
                STEP.as_secs()
            );
            let took = [
                ground.time(&name("idle"), spec(ground, "true", false)).await?,
                ground.time(&name("cold"), spec(ground, &make, true)).await?,
                ground.time(&name("hit"), spec(ground, &make, true)).await?,
            ];
            bytes = saved(ground, &name("cold")).await?;
            // The first round fills the caches of the node.
            for (times, took) in [&mut idle, &mut cold, &mut hit].into_iter().zip(took).filter(|_| round > 0) {
                times.push(took);
            }
            let entries = ListParams::default().labels("aigise.dev/cache-key");
            ground
                .api::<AigiseSession>()
                .delete_collection(&DeleteParams::background(), &ListParams::default())
                .await?;
            ground.api::<PersistentVolumeClaim>().delete_collection(&DeleteParams::background(), &entries).await?;
            ground.clear().await?;
        }
        println!("\n## Caches: {what}, and steps of {} s; {} MB in the cache\n", STEP.as_secs(), bytes / 1_000_000);
        let rows = [
            ("session with one step, `true`", idle.as_slice()),
            ("cold: steps, and saving", cold.as_slice()),
            ("hit", hit.as_slice()),
        ];
        print_rows("arm", rows.into_iter());
        let median = |times: &[Duration]| quantile(times, 50).as_secs_f64();
        let (restoring, saving) = (median(&hit) - median(&idle), median(&cold) - median(&idle) - STEP.as_secs_f64());
        println!(
            "\nA hit takes {:.2} of the cold start. Restoring takes {restoring:.1} s; making and saving it, beside the",
            median(&hit) / median(&cold)
        );
        println!(
            "{} s of sleep, {saving:.1} s. Break-even: steps that take longer than {restoring:.1} s, from the second session on.",
            STEP.as_secs()
        );
    }
    Ok(())
}

fn spec(ground: &Ground, step: &str, caches: bool) -> Value {
    let steps = json!([{"name": "make", "command": ["sh", "-c", step]}]);
    let mut spec = json!({
        "taskName": "bench",
        "sandboxes": {"main": {"image": ground.args.tools, "init": {"profile": "None", "steps": steps}}},
        "volumes": {"layout": "Single", "data": {"size": "2Gi"}},
    });
    if caches {
        spec["cache"] = json!({"storage": {"size": "2Gi"}});
    }
    spec
}

/// How many bytes a session has saved.
async fn saved(ground: &Ground, name: &str) -> Result<u64> {
    let status = ground.api::<AigiseSession>().get(name).await?.status.unwrap_or_default();
    let save = status.cache.and_then(|cache| cache.save).ok_or("the session has saved nothing")?;
    save.bytes.ok_or_else(|| format!("the session has saved nothing: {save:?}").into())
}
