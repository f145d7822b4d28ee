// From what is drawn to an image like those of the data set: `prepare` gives its pixels, 0 to 255, channel by channel.

// Pillow's resampling with its Lanczos filter, along one axis, in 8 bits as there (src/libImaging/Resample.c).
const sinc = x => x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
const lanczos = x => Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
const to8bits = value => Math.min(255, Math.max(0, Math.round(value)));

function resampling(from, to) {
  const scale = from / to, stretch = Math.max(scale, 1), support = 3 * stretch;
  return Array.from({ length: to }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - support + 0.5)), end = Math.min(from, Math.floor(center + support + 0.5));
    const factors = Array.from({ length: end - first }, (_, i) => lanczos((first + i - center + 0.5) / stretch));
    const sum = factors.reduce((a, b) => a + b, 0);
    return { first, factors: factors.map(factor => factor / sum) };
  });
}

// A plane is { width, height, values }.
function resize(plane, width, height) {
  const across = resampling(plane.width, width), down = resampling(plane.height, height);
  const narrow = new Uint8ClampedArray(width * plane.height), values = new Uint8ClampedArray(width * height);
  for (let y = 0; y < plane.height; y++) {
    across.forEach(({ first, factors }, x) => {
      let sum = 0;
      for (let i = 0, at = y * plane.width + first; i < factors.length; i++, at++) sum += factors[i] * plane.values[at];
      narrow[y * width + x] = to8bits(sum);
    });
  }
  down.forEach(({ first, factors }, y) => {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let i = 0, at = first * width + x; i < factors.length; i++, at += width) sum += factors[i] * narrow[at];
      values[y * width + x] = to8bits(sum);
    }
  });
  return { width, height, values };
}

function cut({ width, values }, left, top, right, bottom) {
  const part = new Uint8ClampedArray((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) part.set(values.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  return { width: right - left, height: bottom - top, values: part };
}

// The rectangle around all ink that is more than half as dark as the darkest; null where there is none.
function boundingBox({ width, height, values }) {
  const least = values.reduce((a, b) => Math.max(a, b), 0) / 2;
  let left = width, top = height, right = 0, bottom = 0;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (values[i] <= least) continue;
      left = Math.min(left, x), right = Math.max(right, x + 1), top = Math.min(top, y), bottom = y + 1;
    }
  }
  return right ? [left, top, right, bottom] : null;
}

function centerOfMass({ width, values }) {
  let mass = 0, x = 0, y = 0;
  values.forEach((value, i) => { mass += value, x += value * (i % width), y += value * Math.floor(i / width); });
  return [x / mass, y / mass];
}

// The figure is scaled to fit a box, with its proportions kept. Its center of mass goes to the middle of the image, as in
// MNIST (LeCun et al. 1998, section III.A), or the middle of the box does.
function placeFigure(ink, width, height, { box, by_mass }) {
  const around = boundingBox(ink), image = new Uint8ClampedArray(width * height);
  if (!around) return image;
  const figure = cut(ink, ...around), scale = box / Math.max(figure.width, figure.height);
  const small = resize(figure, ...[figure.width, figure.height].map(side => Math.max(1, Math.round(side * scale))));
  const [x, y] = by_mass ? centerOfMass(small) : [small.width / 2, small.height / 2];
  const left = Math.min(width - small.width, Math.max(0, Math.floor(width / 2 - x + (by_mass ? 0.5 : 0))));
  const top = Math.min(height - small.height, Math.max(0, Math.floor(height / 2 - y + (by_mass ? 0.5 : 0))));
  const lightest = small.values.reduce((a, b) => Math.max(a, b), 1);  // thin strokes become pale when they are scaled
  const bright = small.values.map(value => to8bits(value * 255 / lightest));
  for (let row = 0; row < small.height; row++) {
    image.set(bright.subarray(row * small.width, (row + 1) * small.width), (top + row) * width + left);
  }
  return image;
}

const plane = ({ width, height, data }, value) => {
  const values = new Uint8ClampedArray(width * height);
  for (let i = 0; i < values.length; i++) values[i] = value(data, 4 * i);
  return { width, height, values };
};
const alpha = image => plane(image, (data, i) => data[i + 3]);
const grey = image => plane(image, (data, i) => (19595 * data[i] + 38470 * data[i + 1] + 7471 * data[i + 2] + 32768) >> 16);
const colour = channel => image => plane(image, (data, i) => data[i + channel]);

// How much ink a picture of dark on light, or of light on dark, has at each place. Its border is taken for the paper.
function inkOf(picture) {
  const { width, height, values } = grey(picture);
  const border = values.filter((_, i) => i % width === 0 || i % width === width - 1 || i < width || i >= width * (height - 1));
  const paper = border.sort()[border.length >> 1], isLight = paper > 127;
  const away = Array.from(values, value => isLight ? paper - value : value - paper);
  const most = away.reduce((a, b) => Math.max(a, b), 1), floor = most / 10;
  return away.map(value => to8bits((value - floor) * 255 / (most - floor)));
}

// `image` is the ImageData of what is drawn: ink in its alpha where figures are prepared, else colours.
function prepare(image, { image_shape: [channels, height, width], placing }) {
  const planes = placing
    ? Array(channels).fill(placeFigure(alpha(image), width, height, placing))
    : (channels === 1 ? [grey] : [0, 1, 2].map(colour)).map(part => resize(part(image), width, height).values);
  return planes.flatMap(values => Array.from(values));
}
