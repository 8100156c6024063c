rule train:
    input:
        lambda w: [
            file
            for case in networks[w.predictor][0].train_on
            for file in solved(case, "train", "valid")
        ],
        train=lambda w: training_sets(w.predictor, "train"),
        valid=lambda w: training_sets(w.predictor, "valid"),
    output:
        model="results/{run}/models/{predictor}/model.json",
        weights="results/{run}/models/{predictor}/model.safetensors",
        metrics="results/{run}/models/{predictor}/metrics.csv",
    log:
        "results/{run}/logs/train/{predictor}.log",
    benchmark:
        "results/{run}/benchmarks/train/{predictor}.tsv"
    wildcard_constraints:
        predictor=r".+/seed\d+",
    conda:
        "../../environment.yml"
    threads: training_threads
    resources:
        # Minutes that its job may take, 0 being no limit. Set by --set-resources train:runtime=240 or a profile.
        runtime=0,
        mem_mb=training_memory,
        # Of a cluster: where there is none, say --set-resources train:gpu=0. Without a cluster it is not looked at.
        gpu=1,
    params:
        sets=lambda w, input: options(
            train=in_pairs(input.train), valid=in_pairs(input.valid)
        ),
        options=lambda w: options(
            architecture=networks[w.predictor][0].architecture,
            predict=networks[w.predictor][0].predict,
            seed=networks[w.predictor][1],
            **cfg.training.model_dump(exclude={"seeds"}),
        ),
        version=MODEL_VERSION,
    shell:
        "lspipe train {params.sets:q} {params.options:q} --threads {threads:q} --minutes {resources.runtime:q}"
        " -- {output.model:q} 2>&1 | tee -i {log:q}"


rule import_published:
    input:
        lambda w: checkpoints[networks[w.predictor][0].name],
    output:
        model="results/{run}/models/{predictor}/model.json",
        weights="results/{run}/models/{predictor}/model.safetensors",
    log:
        "results/{run}/logs/import_published/{predictor}.log",
    benchmark:
        "results/{run}/benchmarks/import_published/{predictor}.tsv"
    wildcard_constraints:
        predictor=".+/imported",
    conda:
        "../../environment.yml"
    params:
        options=lambda w: origin(w.predictor),
        version=MODEL_VERSION,
    shell:
        "lspipe import-published {params.options:q} -- {input:q} {output.model:q} 2>&1 | tee {log:q}"
