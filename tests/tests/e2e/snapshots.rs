//! `hoist snapshot`, `hoist gc`, and what the other commands say of snapshots.

use std::path::Path;

use hoist::{Access, Config, Engine, Mode, Order, Phase, Scalars, Tier};

use crate::command::{folder, run};
use crate::import::{find, flip};
use crate::model::{self, LAYERS};

const CHANGED: &str = "layers.0.weight";

/// Trains a step that changes one tensor.
fn change(store: &Path, byte: u8, scalars: &Scalars) {
    let engine = Engine::open(Config::new(store, 32 << 20, 16 << 20)).unwrap();
    let whole = engine.whole(engine.tensor(CHANGED).unwrap(), Mode::Overwrite);
    let access = Access::new("layers.0", Phase::Optimizer, Tier::Host, vec![whole]);
    let order = engine.declare(Order { accesses: vec![access] }).unwrap();
    engine.begin_step(order).unwrap();
    engine.acquire(0).unwrap().parts_mut(0).for_each(|part| part.fill(byte));
    engine.commit_step(scalars).unwrap().wait().unwrap();
    engine.close().unwrap();
}

#[test]
fn a_model_is_kept_changed_looked_at_and_gone_back_to() {
    let folder = folder();
    let path = folder.path();
    let (original, store) = (path.join("model.safetensors"), path.join("store"));
    model::write(&original, &LAYERS);
    run(path, &["import", "model.safetensors", "--store", "store"], 0);
    let text = run(path, &["snapshot", "create", "fresh", "--store", "store"], 0);
    assert!(text.contains("snapshot \"fresh\" is epoch 1"), "{text}");
    let text = run(path, &["snapshot", "create", "fresh", "--store", "store"], 1);
    assert!(text.contains("there is one with this name"), "{text}");
    let text = run(path, &["snapshot", "list", "--store", "store"], 0);
    assert!(text.starts_with("fresh: epoch 1") && text.contains("0 B are free without it"), "{text}");

    change(&store, 7, &Scalars::step(5).with("rate", *b"0.1"));
    let text = run(path, &["ls", "store"], 0);
    assert!(text.contains("epoch 2 (step 5, with rate), committed 20"), "{text}");
    assert!(text.contains("snapshot \"fresh\": epoch 1 (step 0)"), "{text}");
    assert!(run(path, &["ls", "store", "--snapshot", "fresh"], 0).contains("epoch 1 (step 0)"));
    let text = run(path, &["gc", "store"], 0);
    // 1,500,000 bytes in whole pages.
    for shown in ["1.4 MiB  snapshots alone", "without snapshot \"fresh\"", "the newest epoch"] {
        assert!(text.contains(shown), "{shown} in {text}");
    }

    run(path, &["export", "--store", "store", "--snapshot", "fresh", "fresh.safetensors"], 0);
    model::assert_same(&original, &path.join("fresh.safetensors"));
    let text = run(path, &["export", "--store", "store", "--snapshot", "gone", "gone.safetensors"], 1);
    assert!(text.contains("no snapshot \"gone\": there is fresh"), "{text}");

    // What only the snapshot has is read by a verify, too.
    let (segment, extent) = find(&store, &model::bytes_of(CHANGED, 1_500_000));
    flip(&segment, extent + 1_000_000);
    let text = run(path, &["verify", "store"], 1);
    assert!(text.contains(&format!("{CHANGED} (snapshot fresh)")) && text.contains(" 1 bad"), "{text}");
    flip(&segment, extent + 1_000_000);
    assert!(run(path, &["verify", "store"], 0).contains(" 0 bad"));

    let text = run(path, &["snapshot", "rollback", "fresh", "--store", "store"], 0);
    assert!(text.contains("epoch 3 (step 0)"), "{text}");
    run(path, &["export", "--store", "store", "back.safetensors"], 0);
    model::assert_same(&original, &path.join("back.safetensors"));
    run(path, &["snapshot", "delete", "fresh", "--store", "store"], 0);
    assert!(run(path, &["snapshot", "delete", "fresh", "--store", "store"], 1).contains("there are none"));
    assert!(run(path, &["gc", "store"], 0).contains("0 B  snapshots alone"));
    assert!(run(path, &["verify", "store"], 0).contains(" 0 bad"));
    change(&store, 8, &Scalars::step(6));
}
