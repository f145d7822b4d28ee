"use strict";
// The trained network, run on one image as torch runs it. network.py describes its layers.
// What a layer takes and gives: its values, in torch's order, and their shape, [C, H, W] or [N].

const pair = value => Array.isArray(value) ? value : [value, value];
const tanhGELU = x => x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))) / 2;

// The error function to 1.5e-7: Abramowitz & Stegun 1964, 7.1.26.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

// Functions of one value. A PReLU has one slope, or one for each channel.
const ACTIVATIONS = {
  ELU: ({ alpha }) => x => x > 0 ? x : alpha * Math.expm1(x),
  GELU: ({ approximate }) => approximate === "tanh" ? tanhGELU : x => x * (1 + erf(x / Math.SQRT2)) / 2,
  LeakyReLU: ({ negative_slope }) => x => x > 0 ? x : negative_slope * x,
  PReLU: (_, [slopes]) => (x, channel) => x > 0 ? x : slopes[slopes.length > 1 ? channel : 0] * x,
  ReLU: () => x => Math.max(0, x),
  SELU: () => x => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
  Sigmoid: () => x => 1 / (1 + Math.exp(-x)),
  SiLU: () => x => x / (1 + Math.exp(-x)),
  Tanh: () => Math.tanh,
};

function activation(apply) {
  return ({ shape, values }) => {
    const size = values.length / shape[0];
    return { shape, values: values.map((value, i) => apply(value, Math.floor(i / size))) };
  };
}

function linear({ in_features: inputs, out_features: outputs }, [weights, biases]) {
  return ({ values }) => {
    const sums = new Float32Array(outputs);
    for (let o = 0; o < outputs; o++) {
      let sum = biases ? biases[o] : 0;
      for (let i = 0, w = o * inputs; i < inputs; i++, w++) sum += weights[w] * values[i];
      sums[o] = sum;
    }
    return { shape: [outputs], values: sums };
  };
}

// As mnist_exp.models.limit_norms, once, because the weights stay.
function limitNorms(weights, inputs, most) {
  for (let start = 0; start < weights.length; start += inputs) {
    const row = weights.subarray(start, start + inputs);
    const factor = Math.min(1, most / Math.sqrt(row.reduce((sum, w) => sum + w * w, 0)));
    row.forEach((w, i) => { row[i] = w * factor; });
  }
  return weights;
}

// The image with a border of one value around each channel.
function pad({ shape: [channels, height, width], values }, [top, left], border) {
  const [rows, columns] = [height + 2 * top, width + 2 * left];
  const padded = new Float32Array(channels * rows * columns).fill(border);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      const from = (c * height + y) * width;
      padded.set(values.subarray(from, from + width), (c * rows + y + top) * columns + left);
    }
  }
  return { shape: [channels, rows, columns], values: padded };
}

const outputSize = ({ shape: [, ...sides] }, kernel, stride) =>
  sides.map((side, i) => Math.floor((side - kernel[i]) / stride[i]) + 1);

// Visits, for each offset within a kernel, the rows of its outputs: the first place of a row, and where its input starts.
function slide({ shape: [, height, width] }, channel, kernel, stride, [rows, columns], visit) {
  for (let dy = 0, tap = 0; dy < kernel[0]; dy++) {
    for (let dx = 0; dx < kernel[1]; dx++, tap++) {
      for (let y = 0; y < rows; y++) visit(y * columns, (channel * height + y * stride[0] + dy) * width + dx, tap);
    }
  }
}

function conv2d({ in_channels: inputs, out_channels: outputs, kernel_size, stride, padding }, [weights, biases]) {
  const kernel = pair(kernel_size), step = pair(stride), taps = kernel[0] * kernel[1];
  return image => {
    const padded = pad(image, pair(padding), 0), size = outputSize(padded, kernel, step), area = size[0] * size[1];
    const values = new Float32Array(outputs * area);
    for (let o = 0; o < outputs; o++) {
      const sums = new Float64Array(area).fill(biases ? biases[o] : 0);
      for (let c = 0; c < inputs; c++) {
        slide(padded, c, kernel, step, size, (place, from, tap) => {
          const weight = weights[(o * inputs + c) * taps + tap], end = place + size[1];
          for (; place < end; place++, from += step[1]) sums[place] += weight * padded.values[from];
        });
      }
      values.set(sums, o * area);
    }
    return { shape: [outputs, ...size], values };
  };
}

function maxPool2d({ kernel_size, stride, padding }) {
  const kernel = pair(kernel_size), step = pair(stride);
  return image => {
    const padded = pad(image, pair(padding), -Infinity), size = outputSize(padded, kernel, step), area = size[0] * size[1];
    const channels = image.shape[0], values = new Float32Array(channels * area).fill(-Infinity);
    for (let c = 0; c < channels; c++) {
      slide(padded, c, kernel, step, size, (row, from) => {
        for (let place = c * area + row, end = place + size[1]; place < end; place++, from += step[1]) {
          values[place] = Math.max(values[place], padded.values[from]);
        }
      });
    }
    return { shape: [channels, ...size], values };
  };
}

const LAYERS = {
  Flatten: () => ({ values }) => ({ shape: [values.length], values }),
  Dropout: () => value => value,
  Identity: () => value => value,
  Linear: linear,
  MaxNormLinear: (settings, [weights, biases]) =>
    linear(settings, [limitNorms(weights, settings.in_features, settings.max_norm), biases]),
  Conv2d: conv2d,
  MaxPool2d: maxPool2d,
};

const PROBABILITIES = {
  softmax(logits) {
    const most = Math.max(...logits), powers = Array.from(logits, logit => Math.exp(logit - most));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map(power => power / sum);
  },
  // As mnist_exp.losses.OneHotMSE: Duchi et al. 2008, ICML, figure 1.
  projection(logits) {
    const descending = Array.from(logits).sort((a, b) => b - a);
    let sum = 0, excess = 0;
    descending.forEach((logit, i) => {
      sum += logit;
      if (logit > (sum - 1) / (i + 1)) excess = (sum - 1) / (i + 1);
    });
    return Array.from(logits, logit => Math.max(0, logit - excess));
  },
};

function float16(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * fraction / 1024);
}

// The numbers in a text of base64, little-endian float16 or float32.
function decode(text, type) {
  const letters = atob(text), bytes = Uint8Array.from(letters, letter => letter.charCodeAt(0));
  return type === "float16" ? Float32Array.from(new Uint16Array(bytes.buffer), float16) : new Float32Array(bytes.buffer);
}

// The middle of an image, as the network takes it; where it takes more than there is, black is added.
function cropCenter(pixels, [channels, height, width], [rows, columns]) {
  const top = Math.floor((height - rows) / 2), left = Math.floor((width - columns) / 2);
  const cropped = new Float32Array(channels * rows * columns);
  for (let c = 0, i = 0; c < channels; c++) {
    for (let y = top; y < top + rows; y++) {
      for (let x = left; x < left + columns; x++, i++) {
        if (y >= 0 && y < height && x >= 0 && x < width) cropped[i] = pixels[(c * height + y) * width + x];
      }
    }
  }
  return cropped;
}

// Returns a function from the pixels of an image, 0 to 255 in the data set's shape, to what the network makes of it:
// `seen` (the pixels in its middle), `hidden` (what each activation gives) and `probabilities`.
function build(model) {
  const numbers = decode(model.weights, model.type);
  let used = 0;
  const layers = model.layers.map(({ type, settings, sizes }) => {
    const tensors = sizes.map(size => numbers.subarray(used, used += size));
    const apply = type in ACTIVATIONS ? activation(ACTIVATIONS[type](settings, tensors)) : LAYERS[type](settings, tensors);
    return { type, apply };
  });
  const shape = [model.image_shape[0], ...model.crop], area = shape[1] * shape[2];
  return pixels => {
    const seen = cropCenter(pixels, model.image_shape, model.crop), hidden = [];
    const normalized = seen.map((pixel, i) => {
      const channel = Math.floor(i / area);
      return (pixel - model.mean[channel]) / model.std[channel];
    });
    let value = { shape, values: normalized };
    for (const { type, apply } of layers) {
      value = apply(value);
      if (type in ACTIVATIONS) hidden.push({ type, ...value });
    }
    return { seen: { shape, values: seen }, hidden, probabilities: PROBABILITIES[model.probabilities](value.values) };
  };
}
