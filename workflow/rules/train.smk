rule train:
    input:
        lambda w: solved(networks[w.predictor][0].train_on[0], "train", "valid"),
        train=lambda w: stores(networks[w.predictor][0].train_on[0], "train"),
        valid=lambda w: stores(networks[w.predictor][0].train_on[0], "valid"),
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
    params:
        options=lambda w: options(
            architecture=networks[w.predictor][0].architecture,
            seed=networks[w.predictor][1],
            **cfg.training.model_dump(exclude={"seeds"}),
        ),
        version=MODEL_VERSION,
    shell:
        "lspipe train {output.model} --train {input.train} --valid {input.valid} {params.options}"
        " --threads {threads} 2>&1 | tee {log}"


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
