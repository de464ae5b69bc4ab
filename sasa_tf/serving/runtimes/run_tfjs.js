// Runs a TensorFlow.js graph model on the CPU: node run_tfjs.js MODEL_DIR FOLDER SHAPE
//
// FOLDER/inputs holds float32 values of this shape. FOLDER/outputs.json gets the outputs by name.
const fs = require("fs");
const path = require("path");
const tf = require("@tensorflow/tfjs");

const [modelDir, folder, shape] = process.argv.slice(2);

function readWeights(manifest) {
  const specs = manifest.flatMap((group) => group.weights);
  const files = manifest.flatMap((group) => group.paths);
  const content = Buffer.concat(files.map((file) => fs.readFileSync(path.join(modelDir, file))));
  return [specs, content.buffer.slice(content.byteOffset, content.byteOffset + content.length)];
}

async function main() {
  await tf.setBackend("cpu");
  const topology = JSON.parse(fs.readFileSync(path.join(modelDir, "model.json"), "utf8"));
  const model = await tf.loadGraphModel({
    load: () => tf.io.getModelArtifactsForJSON(topology, async (manifest) => readWeights(manifest)),
  });
  const content = fs.readFileSync(path.join(folder, "inputs"));
  const values = new Float32Array(content.length / 4);
  Buffer.from(values.buffer).set(content);
  const found = await model.predictAsync({ images: tf.tensor(values, JSON.parse(shape)) });
  const outputs = {};
  for (const [name, tensor] of Object.entries(found)) {
    const { dtype, shape } = tensor;
    outputs[name] = { dtype, shape, values: Array.from(await tensor.data()) };
  }
  const text = JSON.stringify({ version: tf.version.tfjs, outputs });
  fs.writeFileSync(path.join(folder, "outputs.json"), text);
}

main();
