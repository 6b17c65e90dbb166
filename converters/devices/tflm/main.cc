// Classifies photos on a microcontroller: photo, input, inference, class. Replace `take_photo` by your camera.

#include <cstddef>
#include <cstdint>

#include "model_ops.h"
#include "model_settings.h"
#include "preprocess.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

// 1. Memory: there is no heap. The size of the photo is the camera's.
constexpr int kPhotoWidth = 160;
constexpr int kPhotoHeight = 120;
constexpr std::size_t kWorkspace = PREPROCESS_WORKSPACE(kPhotoWidth, kPhotoHeight);
std::uint8_t photo[3 * kPhotoWidth * kPhotoHeight];
std::int32_t workspace[kWorkspace];
alignas(16) std::uint8_t arena[MODEL_ARENA_BYTES];

// 2. A photo: upright, RGB, 8 bits a channel. Here it is a gradient.
void take_photo() {
  for (int y = 0; y < kPhotoHeight; ++y) {
    for (int x = 0; x < kPhotoWidth; ++x) {
      std::uint8_t* pixel = photo + 3 * (y * kPhotoWidth + x);
      pixel[0] = static_cast<std::uint8_t>(x);
      pixel[1] = static_cast<std::uint8_t>(y);
      pixel[2] = 128;
    }
  }
}

// 5. The class with the largest output. Real values, where needed: MODEL_OUTPUT_SCALE * (output - zero point).
int likeliest(const model_output_t* outputs) {
  int best = 0;
  for (int i = 1; i < MODEL_OUTPUT_COUNT; ++i) {
    if (outputs[i] > outputs[best]) best = i;
  }
  return best;
}

}  // namespace

int main() {
  tflite::InitializeTarget();

  // 3. The model, with kernels for its operators only.
  ModelOps ops;
  if (register_model_ops(ops) != kTfLiteOk) return 1;
  tflite::MicroInterpreter interpreter(tflite::GetModel(MODEL_DATA), ops, arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    MicroPrintf("the arena of %d bytes is too small", MODEL_ARENA_BYTES);
    return 1;
  }

  // 4. One inference.
  take_photo();
  model_input_t* input = interpreter.typed_input_tensor<model_input_t>(0);
  if (preprocess(photo, kPhotoWidth, kPhotoHeight, input, workspace, kWorkspace) != 0) return 1;
  if (interpreter.Invoke() != kTfLiteOk) return 1;
  MicroPrintf("class %d", likeliest(interpreter.typed_output_tensor<model_output_t>(0)));
  return 0;
}
