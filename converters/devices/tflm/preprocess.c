#include "preprocess.h"

#include <math.h>

/* A part of a photo: its first pixel, the bytes from one row to the next, and its size. */
typedef struct {
  const uint8_t *rgb;
  int stride;
  int width;
  int height;
} part_t;

/* For each pixel of the result along one axis: the first source pixel, and the weights of the source pixels from it. */
typedef struct {
  int32_t *first;
  int32_t *count;
  int32_t *weights;
  int32_t taps; /* weights reserved for one pixel */
} axis_t;

/* Weights are in fixed point with this many fractional bits, as in Pillow. */
#define PRECISION_BITS 22
#define ONE ((int32_t)1 << PRECISION_BITS)

static int least(int a, int b) { return a < b ? a : b; }

static int most(int a, int b) { return a > b ? a : b; }

#if PREPROCESS_RULE != PREPROCESS_STRETCH

#define SHORTER (MODEL_INPUT_HEIGHT < MODEL_INPUT_WIDTH ? MODEL_INPUT_HEIGHT : MODEL_INPUT_WIDTH)
#define LONGER (MODEL_INPUT_HEIGHT < MODEL_INPUT_WIDTH ? MODEL_INPUT_WIDTH : MODEL_INPUT_HEIGHT)

static part_t cropped(part_t photo, int left, int top, int width, int height) {
  const part_t part = {photo.rgb + (ptrdiff_t)top * photo.stride + 3 * left, photo.stride, width, height};
  return part;
}

static int is_wider(part_t photo) {
  return (int64_t)photo.width * MODEL_INPUT_HEIGHT >= (int64_t)photo.height * MODEL_INPUT_WIDTH;
}

#endif

#if PREPROCESS_RULE == PREPROCESS_CROP_THEN_RESIZE

/* The central part of a photo that becomes the result. */
static part_t central_part(part_t photo) {
  const int64_t h = MODEL_INPUT_HEIGHT, w = MODEL_INPUT_WIDTH, to = PREPROCESS_RESIZE_TO;
  int height, width;
  if (is_wider(photo)) {
    height = (int)(photo.height * (int64_t)SHORTER / to);
    width = (int)(photo.height * w * SHORTER / (h * to));
  } else {
    height = (int)(photo.width * h * SHORTER / (w * to));
    width = (int)(photo.width * (int64_t)SHORTER / to);
  }
  height = most(1, height);
  width = most(1, width);
  return cropped(photo, (photo.width - width + 1) / 2, (photo.height - height + 1) / 2, width, height);
}

#elif PREPROCESS_RULE == PREPROCESS_RESIZE_THEN_CROP

/* A long strip without its ends, which the result does not depend on. */
static part_t shortened(part_t photo) {
  const int64_t aspect = (LONGER + SHORTER - 1) / SHORTER;
  const int64_t longest = 16 * aspect * least(photo.width, photo.height);
  const int width = photo.width > longest ? (int)longest : photo.width;
  const int height = photo.height > longest ? (int)longest : photo.height;
  return cropped(photo, (photo.width - width) / 2, (photo.height - height) / 2, width, height);
}

static void resized_sides(part_t photo, int *width, int *height) {
  const int64_t h = MODEL_INPUT_HEIGHT, w = MODEL_INPUT_WIDTH, to = PREPROCESS_RESIZE_TO;
  if (is_wider(photo)) {
    *height = (int)(h * to / SHORTER);
    *width = (int)(photo.width * h * to / ((int64_t)photo.height * SHORTER));
  } else {
    *height = (int)(photo.height * w * to / ((int64_t)photo.width * SHORTER));
    *width = (int)(w * to / SHORTER);
  }
  *height = most(MODEL_INPUT_HEIGHT, *height);
  *width = most(MODEL_INPUT_WIDTH, *width);
}

static int half_to_even(int number) {
  const int half = number / 2;
  return number % 2 ? half + half % 2 : half;
}

#endif

/* The share that each pixel of the result takes from one source pixel only. */
static void take(axis_t *axis, int place, int source) {
  axis->first[place] = source;
  axis->count[place] = 1;
  axis->weights[(ptrdiff_t)place * axis->taps] = ONE;
}

#if PREPROCESS_INTERPOLATION == PREPROCESS_NEAREST

static void set_axis(axis_t *axis, int from, int to, int begin, int count) {
  const double step = (double)from / to;
  double place = step * 0.5; /* accumulated as in Pillow: a product rounds differently */
  int i;
  axis->taps = 1;
  for (i = 0; i < begin + count; ++i) {
    if (i >= begin) take(axis, i - begin, least((int)place, from - 1));
    place += step;
  }
}

#else

static double filter(double x) {
#if PREPROCESS_INTERPOLATION == PREPROCESS_BILINEAR
  x = x < 0 ? -x : x;
  return x < 1 ? 1 - x : 0;
#elif PREPROCESS_INTERPOLATION == PREPROCESS_BICUBIC
  const double a = -0.5; /* Catmull-Rom */
  x = x < 0 ? -x : x;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
#else
  const double pi = 3.14159265358979323846;
  if (x == 0) return 1;
  if (x < -3 || x >= 3) return 0;
  return sin(x * pi) / (x * pi) * (sin(x / 3 * pi) / (x / 3 * pi));
#endif
}

/* The weights with which one pixel takes from its source pixels; they add up to ONE. */
static void weigh(axis_t *axis, int place, double centre, double scale, int first, int count) {
  int32_t *weights = axis->weights + (ptrdiff_t)place * axis->taps;
  double sum = 0;
  int i;
  for (i = 0; i < count; ++i) sum += filter((first + i - centre + 0.5) * (1 / scale));
  for (i = 0; i < count; ++i) {
    const double weight = filter((first + i - centre + 0.5) * (1 / scale));
    const double share = sum != 0 ? weight / sum : weight;
    weights[i] = (int32_t)(share < 0 ? share * ONE - 0.5 : share * ONE + 0.5);
  }
  axis->first[place] = first;
  axis->count[place] = count;
}

static void set_axis(axis_t *axis, int from, int to, int begin, int count) {
  const double step = (double)from / to;
  const double scale = step > 1 ? step : 1; /* antialiasing */
  const double reach = PREPROCESS_FILTER_RADIUS * scale;
  int i;
  axis->taps = from == to ? 1 : (int32_t)ceil(reach) * 2 + 1;
  for (i = 0; i < count; ++i) {
    const double centre = (begin + i + 0.5) * step;
    const int first = most(0, (int)(centre - reach + 0.5));
    const int end = least(from, (int)(centre + reach + 0.5));
    if (from == to) {
      take(axis, i, begin + i);
    } else {
      weigh(axis, i, centre, scale, first, end - first);
    }
  }
}

#endif

/* Let an axis count its source pixels from the first that it reads; returns how many it reads. */
static int rebase(axis_t *axis, int count, int *origin) {
  const int end = axis->first[count - 1] + axis->count[count - 1];
  int i;
  *origin = axis->first[0];
  for (i = 0; i < count; ++i) axis->first[i] -= *origin;
  return end - *origin;
}

static uint8_t rounded(int32_t sum) {
  if (sum < 0) return 0;
  return (uint8_t)least(255, (int)(sum >> PRECISION_BITS));
}

/* One pixel of the result along an axis, from a line of pixels that are `step` bytes apart. */
static void filtered(const uint8_t *line, ptrdiff_t step, const axis_t *axis, int place, uint8_t *rgb) {
  const int32_t *weights = axis->weights + (ptrdiff_t)place * axis->taps;
  const uint8_t *pixel = line + axis->first[place] * step;
  int32_t red = ONE / 2, green = ONE / 2, blue = ONE / 2;
  int32_t i;
  for (i = 0; i < axis->count[place]; ++i, pixel += step) {
    red += pixel[0] * weights[i];
    green += pixel[1] * weights[i];
    blue += pixel[2] * weights[i];
  }
  rgb[0] = rounded(red);
  rgb[1] = rounded(green);
  rgb[2] = rounded(blue);
}

/* The model's input for a value 0..255 of a channel. */
static model_input_t encoded(int pixel, int channel) {
#if PREPROCESS_ADDS_OFFSET
  (void)channel;
  return (model_input_t)most(MODEL_INPUT_MIN, least(MODEL_INPUT_MAX, pixel + PREPROCESS_PIXEL_OFFSET));
#else
  static const float mean[] = PREPROCESS_MEAN, std[] = PREPROCESS_STD;
  const float value = ((float)pixel - mean[channel]) / std[channel];
#if MODEL_INPUT_IS_FLOAT
  return value;
#else
  const float stored = rintf(value / MODEL_INPUT_SCALE) + (float)MODEL_INPUT_ZERO_POINT;
  if (stored <= MODEL_INPUT_MIN) return MODEL_INPUT_MIN;
  return stored >= MODEL_INPUT_MAX ? MODEL_INPUT_MAX : (model_input_t)stored;
#endif
#endif
}

static void store(const uint8_t *rgb, model_input_t *input) {
#if MODEL_INPUT_CHANNELS == 1
  const int32_t luma = rgb[0] * (int32_t)19595 + rgb[1] * (int32_t)38470 + rgb[2] * (int32_t)7471 + 0x8000;
  input[0] = encoded((int)(luma >> 16), 0);
#else
  int channel;
  for (channel = 0; channel < 3; ++channel) input[channel] = encoded(rgb[channel], channel);
#endif
}

/* Two passes, each rounded to bytes. Both round, so their order changes the result; Pillow runs the pass first that
 * saves more work. */
static void resample(part_t photo, axis_t columns, axis_t rows, int rows_first, uint8_t *middle, model_input_t *input) {
  const int width = MODEL_INPUT_WIDTH, height = MODEL_INPUT_HEIGHT;
  int left, top, x, y;
  const int wide = rebase(&columns, width, &left), tall = rebase(&rows, height, &top);
  const uint8_t *source = photo.rgb + (ptrdiff_t)top * photo.stride + 3 * left;
  uint8_t rgb[3];
  const int middle_wide = rows_first ? wide : width, middle_tall = rows_first ? height : tall;
  for (y = 0; y < middle_tall; ++y) {
    for (x = 0; x < middle_wide; ++x) {
      uint8_t *to = middle + 3 * ((ptrdiff_t)y * middle_wide + x);
      if (rows_first) {
        filtered(source + 3 * x, photo.stride, &rows, y, to);
      } else {
        filtered(source + (ptrdiff_t)y * photo.stride, 3, &columns, x, to);
      }
    }
  }
  for (y = 0; y < height; ++y) {
    for (x = 0; x < width; ++x) {
      if (rows_first) {
        filtered(middle + 3 * (ptrdiff_t)y * middle_wide, 3, &columns, x, rgb);
      } else {
        filtered(middle + 3 * x, 3 * (ptrdiff_t)middle_wide, &rows, y, rgb);
      }
      store(rgb, input + MODEL_INPUT_CHANNELS * ((ptrdiff_t)y * width + x));
    }
  }
}

int preprocess(const uint8_t *photo, int width, int height, model_input_t *input, int32_t *workspace,
               size_t workspace_count) {
  part_t part = {photo, 3 * width, width, height};
  int to_width = MODEL_INPUT_WIDTH, to_height = MODEL_INPUT_HEIGHT, left = 0, top = 0;
  int rows_lost;
  axis_t columns, rows;
  if (width < 1 || height < 1 || width > PREPROCESS_MAX_SIDE || height > PREPROCESS_MAX_SIDE ||
      workspace_count < PREPROCESS_WORKSPACE(width, height)) {
    return -1;
  }
#if PREPROCESS_RULE == PREPROCESS_CROP_THEN_RESIZE
  part = central_part(part);
#elif PREPROCESS_RULE == PREPROCESS_RESIZE_THEN_CROP
  part = shortened(part);
  resized_sides(part, &to_width, &to_height);
  left = half_to_even(to_width - MODEL_INPUT_WIDTH);
  top = half_to_even(to_height - MODEL_INPUT_HEIGHT);
#endif
  columns.first = workspace;
  columns.count = columns.first + MODEL_INPUT_WIDTH;
  columns.weights = columns.count + MODEL_INPUT_WIDTH;
  set_axis(&columns, part.width, to_width, left, MODEL_INPUT_WIDTH);
  rows.first = columns.weights + (ptrdiff_t)MODEL_INPUT_WIDTH * columns.taps;
  rows.count = rows.first + MODEL_INPUT_HEIGHT;
  rows.weights = rows.count + MODEL_INPUT_HEIGHT;
  set_axis(&rows, part.height, to_height, top, MODEL_INPUT_HEIGHT);
  rows_lost = part.height - to_height;
  resample(part, columns, rows, rows_lost > 0 && rows_lost > 2 * (part.width - to_width),
           (uint8_t *)(rows.weights + (ptrdiff_t)MODEL_INPUT_HEIGHT * rows.taps), input);
  return 0;
}
