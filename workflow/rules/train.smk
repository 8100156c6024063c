rule train:
    input:
        lambda w: [
            file
            for case in networks[w.predictor][0].train_on
            for split in ("train", "valid")
            for file in [*solved(case, split), *stores(case, split)]
        ],
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
        options=lambda w: options(
            **{
                split: [
                    stores(case, split) for case in networks[w.predictor][0].train_on
                ]
                for split in ("train", "valid")
            },
            architecture=networks[w.predictor][0].architecture,
            components=networks[w.predictor][0].components,
            seed=networks[w.predictor][1],
            **cfg.training.model_dump(exclude={"seeds"}),
        ),
        version=MODEL_VERSION,
    shell:
        "lspipe train {output.model} {params.options}"
        " --threads {threads} --minutes {resources.runtime} 2>&1 | tee -i {log}"


rule import_checkpoint:
    input:
        lambda w: networks[w.predictor][0].checkpoint,
    output:
        model="results/{run}/models/{predictor}/model.json",
        weights="results/{run}/models/{predictor}/model.safetensors",
    log:
        "results/{run}/logs/import_checkpoint/{predictor}.log",
    benchmark:
        "results/{run}/benchmarks/import_checkpoint/{predictor}.tsv"
    wildcard_constraints:
        predictor=".+/imported",
    conda:
        "../../environment.yml"
    params:
        options=lambda w: origin(w.predictor),
        version=MODEL_VERSION,
    shell:
        "lspipe import-checkpoint {input:q} {output.model} {params.options} 2>&1 | tee {log}"
