import Foundation
import OnnxRuntimeBindings

/// Why the model did not answer.
public enum ModelError: Error, Equatable, CustomStringConvertible {
    /// What was given does not fit the model; `input` is the name of the column or tensor.
    case misfit(input: String, reason: String)
    /// The package or the runtime is not what it should be.
    case broken(String)

    public var description: String {
        switch self {
        case .misfit(let input, let reason): return input.isEmpty ? reason : "the input \(input): \(reason)"
        case .broken(let reason): return reason
        }
    }
}

/// Numbers or texts in row-major order, and how many there are in each dimension.
public struct Tensor<Element: Sendable>: Sendable {
    public var shape: [Int]
    public var data: [Element]

    public init(shape: [Int], data: [Element]) {
        self.shape = shape
        self.data = data
    }

    func check(_ name: String, fits wanted: [Int]) throws {
        let alike = shape.count == wanted.count && zip(shape, wanted).allSatisfy { $0 == $1 || $1 == -1 }
        guard alike else {
            throw ModelError.misfit(input: name, reason: "the shape is \(shape), the model takes \(wanted)")
        }
        guard data.count == shape.reduce(1, *), !data.isEmpty else {
            throw ModelError.misfit(input: name, reason: "there are \(data.count) values for the shape \(shape)")
        }
    }

    /// The values of each row, where there are `count` of them.
    func rows(_ count: Int, of name: String) throws -> [[Element]] {
        guard shape.first == count, data.count % count == 0 else {
            throw ModelError.broken("the output \(name) has the shape \(shape) for \(count) rows")
        }
        let size = data.count / count
        return (0..<count).map { Array(data[($0 * size)..<(($0 + 1) * size)]) }
    }

    func value(_ type: ORTTensorElementDataType) throws -> ORTValue {
        let bytes = data.withUnsafeBufferPointer { NSMutableData(data: Data(buffer: $0)) }
        return try ORTValue(tensorData: bytes, elementType: type, shape: shape.map { NSNumber(value: $0) })
    }

    func map<Other: Sendable>(_ change: (Element) throws -> Other) rethrows -> Tensor<Other> {
        Tensor<Other>(shape: shape, data: try data.map(change))
    }
}

extension Tensor where Element == String {
    func enter(_ feeds: inout [String: ORTValue], as name: String) throws {
        // the bindings hand texts on as C strings, which end at a zero
        guard !data.contains(where: { $0.utf8.contains(0) }) else {
            throw ModelError.misfit(input: name, reason: "a text holds the character U+0000")
        }
        feeds[name] = try ORTValue(tensorStringData: data, shape: shape.map { NSNumber(value: $0) })
    }
}

extension Tensor where Element == Double {
    /// A double goes in as significand * 2 ** exponent, because the bindings hold none.
    func enter(_ feeds: inout [String: ORTValue], significand: String, exponent: String) throws {
        let parts = data.map(Self.parts)
        feeds[significand] = try Tensor<Int64>(shape: shape, data: parts.map { $0.0 }).value(.int64)
        feeds[exponent] = try Tensor<Int64>(shape: shape, data: parts.map { $0.1 }).value(.int64)
    }

    /// The whole numbers whose first times two to the power of the second is a number.
    public static func parts(_ number: Double) -> (Int64, Int64) {
        let beyond: Int64 = 4096
        if number.isNaN { return (0, beyond) }
        if number.isInfinite { return (number < 0 ? -1 : 1, beyond) }
        if number.isZero { return (0, 0) }
        let whole = Int64(number.significand * 4_503_599_627_370_496)
        let zeros = whole.trailingZeroBitCount
        let odd = whole >> Int64(zeros)
        return (number < 0 ? -odd : odd, Int64(number.exponent) - 52 + Int64(zeros))
    }
}

/// Reads an output of the runtime.
func tensor<Element: Sendable>(_ found: [String: ORTValue], _ name: String, of _: Element.Type) throws -> Tensor<Element> {
    let value = try present(found, name)
    let shape = try value.tensorTypeAndShapeInfo().shape.map { $0.intValue }
    let data = try value.tensorData() as Data
    return Tensor(shape: shape, data: data.withUnsafeBytes { Array($0.bindMemory(to: Element.self)) })
}

func texts(_ found: [String: ORTValue], _ name: String) throws -> Tensor<String> {
    let value = try present(found, name)
    let shape = try value.tensorTypeAndShapeInfo().shape.map { $0.intValue }
    return Tensor(shape: shape, data: try value.tensorStringData())
}

/// A double comes out as the sum of two floats, because the bindings hold none.
func doubles(_ found: [String: ORTValue], high: String, low: String) throws -> Tensor<Double> {
    let upper = try tensor(found, high, of: Float.self)
    let lower = try tensor(found, low, of: Float.self)
    let data = zip(upper.data, lower.data).map { pair -> Double in
        pair.1.isFinite ? Double(pair.0) + Double(pair.1) : Double(pair.0)
    }
    return Tensor(shape: upper.shape, data: data)
}

private func present(_ found: [String: ORTValue], _ name: String) throws -> ORTValue {
    guard let value = found[name] else { throw ModelError.broken("the model gave no output \(name)") }
    return value
}
