package dev.edgecv.core

import java.nio.ByteBuffer

/** The kind of kernels that run a model; [label] is its name on the screen and in measurements. */
enum class Delegate(val label: String) {
    XNNPACK("XNNPACK"),
    CPU("CPU"),
    GPU("GPU"),
    NNAPI("NNAPI"),
    ;

    /** The delegate to try if this one fails; null if there is none. */
    val fallback: Delegate?
        get() = when (this) {
            GPU, NNAPI -> XNNPACK
            XNNPACK -> CPU
            CPU -> null
        }
}

data class Settings(val threads: Int, val delegate: Delegate)

/** Opens models; the app implements it with TensorFlow Lite. */
interface Runtime {
    /**
     * @param model the file's bytes in a direct buffer, which must stay valid as long as the engine.
     * @throws DelegateError if the delegate is missing or rejects the model.
     * @throws InputError if the runtime rejects the model.
     */
    fun open(model: ByteBuffer, settings: Settings): Engine
}

/** An open model with one input and one output. Use it only on the thread that opened it. */
interface Engine : AutoCloseable {
    /** Name, version and delegate, such as "tensorflow-lite 2.16.1 XNNPACK". */
    val runtime: String
    val input: Tensor
    val output: Tensor

    /**
     * Runs one inference on buffers of [Tensor.buffer].
     *
     * @throws DelegateError if the delegate fails.
     */
    fun run(input: ByteBuffer, output: ByteBuffer)
}
