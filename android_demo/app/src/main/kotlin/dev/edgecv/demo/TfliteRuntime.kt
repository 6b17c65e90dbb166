package dev.edgecv.demo

import dev.edgecv.core.Delegate
import dev.edgecv.core.DelegateError
import dev.edgecv.core.Engine
import dev.edgecv.core.InputError
import dev.edgecv.core.Runtime
import dev.edgecv.core.Settings
import dev.edgecv.core.Tensor
import dev.edgecv.core.Type
import dev.edgecv.core.reason
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.TensorFlowLite
import org.tensorflow.lite.gpu.GpuDelegate
import org.tensorflow.lite.nnapi.NnApiDelegate
import java.nio.ByteBuffer

/** Runs models with TensorFlow Lite, or with LiteRT 1, whose classes have the same names. */
object TfliteRuntime : Runtime {
    override fun open(model: ByteBuffer, settings: Settings): Engine {
        val needsDelegate = settings.delegate == Delegate.GPU || settings.delegate == Delegate.NNAPI
        val delegate = if (needsDelegate) delegate(settings.delegate) else null
        try {
            val options = Interpreter.Options()
            options.setNumThreads(settings.threads)
            options.setUseXNNPACK(settings.delegate == Delegate.XNNPACK)
            if (delegate != null) options.addDelegate(delegate)
            val interpreter = Interpreter(model.duplicate().apply { rewind() }, options)
            try {
                return TfliteEngine(interpreter, delegate, settings.delegate)
            } catch (error: Exception) {
                interpreter.close()
                throw error
            }
        } catch (error: InputError) {
            delegate?.close()
            throw error
        } catch (error: RuntimeException) {
            delegate?.close()
            if (settings.delegate != Delegate.CPU) throw DelegateError("${settings.delegate.label} rejects the model: ${error.reason()}", error)
            throw InputError("The runtime rejects the model: ${error.reason()}", error)
        } catch (error: LinkageError) {
            throw InputError("TensorFlow Lite is not built for this device: ${error.reason()}", error)
        }
    }

    private fun delegate(kind: Delegate): org.tensorflow.lite.Delegate = try {
        if (kind == Delegate.GPU) {
            GpuDelegate()
        } else {
            System.loadLibrary("neuralnetworks") // without this library the delegate would silently run everything on the CPU
            NnApiDelegate()
        }
    } catch (error: RuntimeException) {
        throw DelegateError("this device has no ${kind.label} delegate: ${error.reason()}", error)
    } catch (error: LinkageError) {
        throw DelegateError("this device has no ${kind.label} delegate: ${error.reason()}", error)
    }
}

private class TfliteEngine(
    private val interpreter: Interpreter,
    private val delegate: org.tensorflow.lite.Delegate?,
    private val kind: Delegate,
) : Engine {
    override val runtime = "tensorflow-lite ${TensorFlowLite.runtimeVersion()} ${kind.label}"
    override val input: Tensor
    override val output: Tensor

    init {
        val counts = interpreter.inputTensorCount to interpreter.outputTensorCount
        if (counts != 1 to 1) {
            throw InputError("The model must have one input and one output. Received: ${counts.first} and ${counts.second}")
        }
        input = tensor("input", interpreter.getInputTensor(0))
        output = tensor("output", interpreter.getOutputTensor(0))
    }

    override fun run(input: ByteBuffer, output: ByteBuffer) {
        input.rewind()
        output.rewind()
        try {
            interpreter.run(input, output)
        } catch (error: RuntimeException) {
            throw DelegateError("${kind.label} failed: ${error.reason()}", error)
        }
    }

    override fun close() {
        interpreter.close()
        delegate?.close()
    }

    private fun tensor(what: String, tensor: org.tensorflow.lite.Tensor): Tensor {
        val type = when (tensor.dataType()) {
            DataType.FLOAT32 -> Type.FLOAT32
            DataType.INT8 -> Type.INT8
            DataType.UINT8 -> Type.UINT8
            DataType.INT16 -> Type.INT16
            else -> throw InputError("The model's $what must be float32, int8, uint8 or int16. Received: ${tensor.dataType()}")
        }
        val quantization = tensor.quantizationParams()
        return Tensor(tensor.shape().toList(), type, quantization.scale, quantization.zeroPoint)
    }
}
