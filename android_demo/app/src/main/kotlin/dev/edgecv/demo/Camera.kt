package dev.edgecv.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.ImageFormat
import android.graphics.Matrix
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.os.HandlerThread
import android.view.Surface
import dev.edgecv.core.CameraFrame
import dev.edgecv.core.Plane
import dev.edgecv.core.reason
import java.nio.ByteBuffer

/**
 * The live camera with Camera2: a preview, and frames for the model.
 *
 * @param onFrame called with each frame and the rotation that makes it upright, on the camera's thread; the image is closed
 *     afterwards.
 * @param onFailure called with the reason if the camera stops unexpectedly, on the camera's thread.
 */
class Camera(
    context: Context,
    private val onFrame: (Image, Int) -> Unit,
    private val onFailure: (String) -> Unit,
) {
    private val manager = context.getSystemService(Context.CAMERA_SERVICE) as CameraManager
    private val id: String? = try {
        val ids = manager.cameraIdList
        ids.firstOrNull { facing(it) == CameraCharacteristics.LENS_FACING_BACK } ?: ids.firstOrNull()
    } catch (_: CameraAccessException) {
        null
    }
    private var thread: HandlerThread? = null
    @Volatile
    private var device: CameraDevice? = null

    // Opening is asynchronous; callbacks of an opening that stop() cancelled are ignored.
    @Volatile
    private var opening: Opened? = null
    private var reader: ImageReader? = null

    val exists get() = id != null

    /** Width and height of the frames before rotation; null before [start]. */
    var size: Pair<Int, Int>? = null
        private set

    private fun facing(id: String) = manager.getCameraCharacteristics(id).get(CameraCharacteristics.LENS_FACING)

    private fun sensor() = manager.getCameraCharacteristics(id!!).get(CameraCharacteristics.SENSOR_ORIENTATION) ?: 0

    /**
     * Opens the camera; the app must have the camera permission.
     *
     * @param texture shows the preview.
     * @param shortSide minimum short side of the frames, in pixels.
     * @param displayDegrees the display's rotation in degrees.
     */
    @SuppressLint("MissingPermission")
    fun start(texture: SurfaceTexture, shortSide: Int, displayDegrees: Int) {
        stop()
        val id = id ?: return
        val handlerThread = HandlerThread("camera").apply { start() }
        thread = handlerThread
        val handler = Handler(handlerThread.looper)
        try {
            val characteristics = manager.getCameraCharacteristics(id)
            val map = characteristics.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)
            val sizes = map?.getOutputSizes(ImageFormat.YUV_420_888).orEmpty().map { it.width to it.height }
            if (sizes.isEmpty()) return onFailure("it has no YUV_420_888 frames")
            val chosen = CameraFrame.chooseSize(sizes, shortSide)
            size = chosen
            val degrees = CameraFrame.degreesUpright(sensor(), displayDegrees, facing(id) == CameraCharacteristics.LENS_FACING_FRONT)
            texture.setDefaultBufferSize(chosen.first, chosen.second)
            val frames = ImageReader.newInstance(chosen.first, chosen.second, ImageFormat.YUV_420_888, 2)
            frames.setOnImageAvailableListener({ it.acquireLatestImage()?.use { image -> onFrame(image, degrees) } }, handler)
            reader = frames
            val opened = Opened(Surface(texture), frames.surface, handler)
            opening = opened
            manager.openCamera(id, opened, handler)
        } catch (error: CameraAccessException) {
            onFailure(error.reason())
        } catch (error: RuntimeException) { // vendors' camera services throw undocumented exceptions
            onFailure(error.reason())
        }
    }

    fun stop() {
        opening = null
        device?.close()
        device = null
        // on the camera's thread, after the current frame
        val frames = reader
        thread?.let { Handler(it.looper).post { frames?.close() } }
        reader = null
        thread?.quitSafely()
        thread = null
    }

    /** The transform that shows the centre of the preview upright and undistorted in a view of [width] x [height]. */
    fun previewTransform(width: Int, height: Int, displayDegrees: Int): Matrix {
        val (frameWidth, frameHeight) = size ?: return Matrix()
        val turned = sensor() % 180 != 0 // the view shows the frame for an unrotated display
        val naturalWidth = if (turned) frameHeight else frameWidth
        val naturalHeight = if (turned) frameWidth else frameHeight
        val rotated = displayDegrees % 180 != 0
        val shownWidth = if (rotated) naturalHeight else naturalWidth
        val shownHeight = if (rotated) naturalWidth else naturalHeight
        val scale = maxOf(width.toFloat() / shownWidth, height.toFloat() / shownHeight)
        return Matrix().apply {
            setScale(scale * naturalWidth / width, scale * naturalHeight / height, width / 2f, height / 2f)
            postRotate(-displayDegrees.toFloat(), width / 2f, height / 2f)
        }
    }

    private inner class Opened(private val preview: Surface, private val frames: Surface, private val handler: Handler) :
        CameraDevice.StateCallback() {
        @Suppress("DEPRECATION") // its replacement needs Android 9
        override fun onOpened(camera: CameraDevice) {
            if (opening !== this) return camera.close()
            device = camera
            try {
                camera.createCaptureSession(listOf(preview, frames), Configured(), handler)
            } catch (error: CameraAccessException) {
                onFailure(error.reason())
            } catch (error: RuntimeException) {
                onFailure(error.reason())
            }
        }

        override fun onDisconnected(camera: CameraDevice) {
            camera.close()
            if (opening === this) onFailure("another app uses it")
        }

        override fun onError(camera: CameraDevice, error: Int) {
            camera.close()
            if (opening === this) onFailure("camera error $error")
        }

        private inner class Configured : CameraCaptureSession.StateCallback() {
            override fun onConfigured(session: CameraCaptureSession) {
                try {
                    val request = session.device.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
                    request.addTarget(preview)
                    request.addTarget(frames)
                    request.set(CaptureRequest.CONTROL_AF_MODE, CaptureRequest.CONTROL_AF_MODE_CONTINUOUS_PICTURE)
                    session.setRepeatingRequest(request.build(), null, handler)
                } catch (error: CameraAccessException) {
                    onFailure(error.reason())
                } catch (error: RuntimeException) {
                    onFailure(error.reason())
                }
            }

            override fun onConfigureFailed(session: CameraCaptureSession) = onFailure("it rejects this frame size")
        }
    }

    companion object {
        /** A copy of a camera image; the image itself is returned to the camera. */
        fun copy(image: Image): CameraFrame {
            val (y, u, v) = image.planes.map { plane ->
                val bytes = ByteBuffer.allocate(plane.buffer.remaining())
                bytes.put(plane.buffer)
                Plane(bytes, plane.rowStride, plane.pixelStride)
            }
            return CameraFrame(image.width, image.height, y, u, v)
        }
    }
}
