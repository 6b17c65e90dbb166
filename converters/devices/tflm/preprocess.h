/* From a photo to the model's input: crop, resize and quantization as edge_cv computes them, bit for bit.
 *
 * Portable C99 without malloc. The weights of the filters are computed in double. Where the compiler may fuse a
 * multiplication with an addition, compile with -ffp-contract=off.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "model_settings.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PREPROCESS_MAX_SIDE 32767 /* of a photo, in pixels */

/* The workspace, in int32_t, that a photo of this size needs at most: the weights of both axes, and the photo after
 * the first of two passes. Both are constant expressions if width and height are. */
#define PREPROCESS_AXIS_INTS(from, to) \
  (2 * PREPROCESS_FILTER_RADIUS * ((size_t)(from) + (size_t)(to)) + 5 * (size_t)(to))
#define PREPROCESS_MIDDLE_BYTES(width, height)                                                              \
  (3 * ((size_t)MODEL_INPUT_WIDTH * (size_t)(height) > (size_t)MODEL_INPUT_HEIGHT * (size_t)(width)         \
            ? (size_t)MODEL_INPUT_WIDTH * (size_t)(height)                                                  \
            : (size_t)MODEL_INPUT_HEIGHT * (size_t)(width)))
#define PREPROCESS_WORKSPACE(width, height)                                                                 \
  (PREPROCESS_AXIS_INTS(width, MODEL_INPUT_WIDTH) + PREPROCESS_AXIS_INTS(height, MODEL_INPUT_HEIGHT) +      \
   (PREPROCESS_MIDDLE_BYTES(width, height) + 3) / 4)

/* Writes the model's input for a photo.
 *
 * photo: upright, RGB, 8 bits a channel, row by row: 3 * width * height bytes.
 * input: MODEL_INPUT_COUNT values, the data of the model's input tensor.
 * workspace, workspace_count: at least PREPROCESS_WORKSPACE(width, height) values; free again afterwards.
 *
 * Returns 0; or -1, with the input unchanged, for a photo without pixels, one larger than PREPROCESS_MAX_SIDE or a
 * workspace that is too small.
 */
int preprocess(const uint8_t *photo, int width, int height, model_input_t *input, int32_t *workspace,
               size_t workspace_count);

#ifdef __cplusplus
}
#endif
